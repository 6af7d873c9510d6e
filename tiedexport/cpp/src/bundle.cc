#include "bundle.hpp"

#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "error.hpp"
#include "sha256.hpp"
#include "words.hpp"

namespace tiedexport::internal {
namespace {

constexpr const char* manifest_name = "manifest.json";
constexpr std::uint64_t manifest_limit_bytes = 64u << 20;
constexpr std::size_t block_bytes = std::size_t{1} << 20;
constexpr const char* again = "copy the bundle again, or rebuild it: tiedexport build model.pt";

[[noreturn]] void refuse_not_a_bundle(const std::string& path, const std::string& got) {
  throw Error(TIEDEXPORT_NOT_FOUND,
              {"not a bundle", path, got, "a directory written by tiedexport build",
               "tiedexport build model.pt -o " + path});
}

std::string sha256_of(int fd, std::uint64_t size_bytes, const std::string& where) {
  Sha256 hash;
  std::vector<std::byte> block(
      static_cast<std::size_t>(std::min<std::uint64_t>(size_bytes, block_bytes)));
  for (std::uint64_t at = 0; at < size_bytes; at += block_bytes) {
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(block_bytes, size_bytes - at));
    read_at(fd, at, block.data(), count, where);
    hash.update(block.data(), count);
  }
  return hash.hex();
}

void refuse_altered(const std::string& digest, const FileRecord& record, const std::string& where) {
  if (digest == record.sha256) return;
  throw Error(TIEDEXPORT_CORRUPT, {"a file of the bundle was altered", where, "SHA-256 " + digest,
                                   shown(record.sha256), again});
}

/// Opens a file that the manifest lists, of the size that it says.
File open_listed(const File& directory, const std::string& name, const FileRecord& record,
                 const std::string& root) {
  File file = open_regular(directory, name, root);
  const std::string where = joined(root, name);
  refuse_wrong_size(size_of_regular(file.fd(), where), record.size_bytes, where);
  return file;
}

Manifest manifest_in(const File& directory, const std::string& path) {
  if (!directory.is_open())
    refuse_not_a_bundle(path, access(path.c_str(), F_OK) == 0 ? "a file" : "no such directory");
  if (!has_entry(directory, manifest_name))
    refuse_not_a_bundle(path, std::string("no ") + manifest_name + " in it");
  const File file = open_regular(directory, manifest_name, path);
  const std::string where = joined(path, manifest_name);
  const std::uint64_t size_bytes = size_of_regular(file.fd(), where);
  if (size_bytes > manifest_limit_bytes)
    throw Error(TIEDEXPORT_CORRUPT, {"the manifest is too large to be one", where, "", "", ""});
  std::string bytes(static_cast<std::size_t>(size_bytes), '\0');
  read_at(file.fd(), 0, bytes.data(), bytes.size(), where);
  return parse_manifest(bytes, where);
}

[[noreturn]] void refuse_precision(const Manifest& manifest, Type precision,
                                   const std::string& path) {
  std::vector<std::string> stored;
  std::string all;
  for (const Type type : manifest.precisions) {
    stored.push_back(name_of(type));
    all += stored.back() + ",";
  }
  throw Error(TIEDEXPORT_INVALID_ARGUMENT,
              {"the bundle does not hold this precision", path, name_of(precision),
               joined_with_commas(stored),
               "tiedexport build model.pt --precision " + all + name_of(precision)});
}

/// Every weight that a layer, or an engine of this precision, reads.
std::set<std::string> weight_names(const Manifest& manifest, Type precision) {
  std::set<std::string> names;
  for (const Stage& stage : manifest.stages)
    for (const Layer& layer : stage.layers)
      for (const std::string& name : {layer.weight, layer.bias})
        if (!name.empty()) names.insert(name);
  for (const Plan& plan : manifest.plans)
    for (const Binding& binding : plan.bindings)
      if (plan.precision == precision && binding.role == "weight") names.insert(binding.name);
  return names;
}

void refuse_absent(const Manifest& manifest, Type precision, const Weights& weights,
                   const std::string& where) {
  std::vector<std::string> absent;
  for (const std::string& name : weight_names(manifest, precision))
    if (weights.tensors().count(name) == 0) absent.push_back(name);
  if (!absent.empty())
    throw Error(TIEDEXPORT_CORRUPT, {"weights that the manifest names are not stored", where,
                                     shown(joined_with_commas(absent)), "", again});
}

}  // namespace

Bundle::Bundle(const std::string& path, tiedexport_check check)
    : path_(path),
      directory_(open_directory(path)),
      check_(check),
      manifest_(manifest_in(directory_, path)) {
  for (const auto& [name, record] : manifest_.files) {
    const File file = open_listed(directory_, name, record, path_);
    const std::string where = joined(path_, name);
    if (check_ == TIEDEXPORT_CHECK_HASH)
      refuse_altered(sha256_of(file.fd(), record.size_bytes, where), record, where);
    for (const auto& [type, weights_name] : manifest_.weights)
      if (weights_name == name) weights_files_.emplace(type, duplicate(file.fd(), where));
  }
}

std::shared_ptr<const Weights> Bundle::weights(Type precision) const {
  const auto file = manifest_.weights.find(precision);
  if (file == manifest_.weights.end()) refuse_precision(manifest_, precision, path_);
  const std::lock_guard<std::mutex> lock(mutex_);
  std::weak_ptr<const Weights>& known = weights_[precision];
  if (auto weights = known.lock()) return weights;
  const std::string where = joined(path_, file->second);
  const std::uint64_t size_bytes = manifest_.files.at(file->second).size_bytes;
  auto weights =
      std::make_shared<const Weights>(weights_files_.at(precision).fd(), size_bytes, where);
  refuse_absent(manifest_, precision, *weights, where);
  known = weights;
  return weights;
}

std::vector<std::byte> Bundle::read(const std::string& name) const {
  const std::string where = joined(path_, name);
  const auto found = manifest_.files.find(name);
  if (found == manifest_.files.end())
    throw Error(TIEDEXPORT_CORRUPT, {"a file that the manifest does not list", where, "", "", ""});
  const FileRecord& record = found->second;
  const File file = open_listed(directory_, name, record, path_);
  std::vector<std::byte> bytes(static_cast<std::size_t>(record.size_bytes));
  read_at(file.fd(), 0, bytes.data(), bytes.size(), where);
  if (check_ == TIEDEXPORT_CHECK_HASH) {
    Sha256 hash;
    hash.update(bytes.data(), bytes.size());
    refuse_altered(hash.hex(), record, where);
  }
  return bytes;
}

}  // namespace tiedexport::internal
