// The C interface: the library, and bundles.
#include <algorithm>
#include <cstring>

#include "capi_errors.hpp"
#include "capi_handles.hpp"
#include "info.hpp"

namespace tiedexport::internal {
namespace {

tiedexport_type c_type(Type type) {
  switch (type) {
    case Type::fp16:
      return TIEDEXPORT_FP16;
    case Type::bf16:
      return TIEDEXPORT_BF16;
    case Type::fp32:
      break;
  }
  return TIEDEXPORT_FP32;
}

tiedexport_tensor c_tensor(const TensorSpec& spec) {
  if (spec.element_shape.size() > TIEDEXPORT_MAX_RANK)
    throw Error(TIEDEXPORT_UNSUPPORTED, {"a tensor has more axes than this interface shows",
                                         spec.name, std::to_string(spec.element_shape.size()),
                                         std::to_string(TIEDEXPORT_MAX_RANK), ""});
  tiedexport_tensor tensor{};
  tensor.name = spec.name.c_str();
  tensor.type = c_type(spec.type);
  tensor.rank = static_cast<uint32_t>(spec.element_shape.size());
  std::copy(spec.element_shape.begin(), spec.element_shape.end(), tensor.shape);
  tensor.sample_bytes = sample_bytes(spec);
  return tensor;
}

tiedexport_stage c_stage(const Stage& stage) {
  return {stage.name.c_str(), c_tensor(stage.input), c_tensor(stage.output)};
}

}  // namespace

std::size_t sample_bytes(const TensorSpec& tensor) {
  const std::size_t count = tensor.element_count(), size = size_of(tensor.type);
  if (count > SIZE_MAX / size) refuse("a sample does not fit into memory", tensor.name);
  return count * size;
}

const Stage& stage_named(const Bundle& bundle, const char* name) {
  require(name, "stage");
  const Stage* stage = bundle.manifest().stage(name);
  if (stage != nullptr) return *stage;
  std::string known;
  for (const Stage& one : bundle.manifest().stages) known += (known.empty() ? "" : ", ") + one.name;
  refuse("the bundle has no such stage", bundle.path(), name, known);
}

}  // namespace tiedexport::internal

using namespace tiedexport::internal;

uint32_t tiedexport_abi_version() { return TIEDEXPORT_ABI_VERSION; }

const char* tiedexport_version() { return TIEDEXPORT_VERSION; }

const char* tiedexport_last_error() { return last_error(); }

size_t tiedexport_info(char* text, size_t size) {
  size_t needed = 0;
  guarded([&] {
    const std::string all = info();
    needed = all.size() + 1;
    if (text == nullptr || size == 0) return;
    const size_t fits = std::min(size, needed) - 1;
    std::memcpy(text, all.data(), fits);
    text[fits] = 0;
  });
  return needed;
}

tiedexport_status tiedexport_open(const char* path, tiedexport_check check,
                                  tiedexport_bundle** bundle) {
  return guarded([&] {
    require(bundle, "bundle");
    *bundle = nullptr;
    require(path, "path");
    if (check != TIEDEXPORT_CHECK_HASH && check != TIEDEXPORT_CHECK_SIZE)
      refuse("unknown check", "", std::to_string(static_cast<int>(check)),
             "TIEDEXPORT_CHECK_HASH or TIEDEXPORT_CHECK_SIZE");
    *bundle = new tiedexport_bundle{std::make_shared<const Bundle>(path, check)};
  });
}

void tiedexport_close(tiedexport_bundle* bundle) { delete bundle; }

size_t tiedexport_stage_count(const tiedexport_bundle* bundle) {
  return bundle == nullptr ? 0 : bundle->bundle->manifest().stages.size();
}

tiedexport_status tiedexport_stage_at(const tiedexport_bundle* bundle, size_t index,
                                      tiedexport_stage* stage) {
  return guarded([&] {
    require(bundle, "bundle");
    require(stage, "stage");
    const auto& stages = bundle->bundle->manifest().stages;
    if (index >= stages.size())
      refuse("there is no stage of this index", bundle->bundle->path(), std::to_string(index),
             "less than " + std::to_string(stages.size()));
    *stage = c_stage(stages[index]);
  });
}

tiedexport_status tiedexport_stage_named(const tiedexport_bundle* bundle, const char* name,
                                         tiedexport_stage* stage) {
  return guarded([&] {
    require(bundle, "bundle");
    require(stage, "stage");
    *stage = c_stage(stage_named(*bundle->bundle, name));
  });
}

size_t tiedexport_precision_count(const tiedexport_bundle* bundle) {
  return bundle == nullptr ? 0 : bundle->bundle->manifest().precisions.size();
}

const char* tiedexport_precision_at(const tiedexport_bundle* bundle, size_t index) {
  if (index >= tiedexport_precision_count(bundle)) return nullptr;
  return name_of(bundle->bundle->manifest().precisions[index]);
}
