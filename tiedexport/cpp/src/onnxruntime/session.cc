#include "onnxruntime/session.hpp"

#include <set>
#include <utility>

#include "error.hpp"

namespace tiedexport::internal::onnxruntime {
namespace {

/// Below any tied weight that matters: folding a Transpose of a larger one would store it again.
constexpr const char* kLargestFoldedBytes = "1024";

void ORT_API_CALL discard(void*, OrtLoggingLevel, const char*, const char*, const char*,
                          const char*) {}

ONNXTensorElementDataType element_of(Type type) {
  switch (type) {
    case Type::fp32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case Type::fp16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case Type::bf16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

std::set<std::string> tensors_of(const Stage& stage) {
  std::set<std::string> names;
  for (const Layer& layer : stage.layers) {
    for (const std::string& name : {layer.weight, layer.bias}) {
      if (!name.empty()) names.insert(name);
    }
  }
  return names;
}

std::vector<std::size_t> shape_of(std::size_t batch, const TensorSpec& spec) {
  std::vector<std::size_t> shape{batch};
  shape.insert(shape.end(), spec.element_shape.begin(), spec.element_shape.end());
  return shape;
}

}  // namespace

void check(const OrtApi& api, OrtStatus* status, const std::string& where) {
  if (status == nullptr) return;
  const Owned<OrtStatus> failure(status, Release<OrtStatus>(api.ReleaseStatus));
  throw Error(TIEDEXPORT_BACKEND_FAILED,
              {"ONNX Runtime failed", where, api.GetErrorMessage(failure.get()), "", ""});
}

Environment::Environment(const OrtApi& api, std::shared_ptr<const Bundle> bundle, Type precision,
                         int threads)
    : api_(api),
      bundle_(std::move(bundle)),
      weights_(bundle_->weights(precision)),
      precision_(precision),
      threads_(threads) {
  OrtEnv* environment = nullptr;
  check(api_,
        api_.CreateEnvWithCustomLogger(discard, nullptr, ORT_LOGGING_LEVEL_ERROR, "tiedexport",
                                       &environment),
        "its environment");
  environment_ = Owned<OrtEnv>(environment, Release<OrtEnv>(api_.ReleaseEnv));
  OrtMemoryInfo* memory = nullptr;
  check(api_, api_.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory),
        "its memory");
  memory_ = Owned<OrtMemoryInfo>(memory, Release<OrtMemoryInfo>(api_.ReleaseMemoryInfo));
}

Owned<OrtSessionOptions> Environment::options() const {
  OrtSessionOptions* made = nullptr;
  const std::string where = "session options";
  check(api_, api_.CreateSessionOptions(&made), where);
  Owned<OrtSessionOptions> options(made, Release<OrtSessionOptions>(api_.ReleaseSessionOptions));
  check(api_, api_.SetInterOpNumThreads(made, 1), where);
  check(api_, api_.SetIntraOpNumThreads(made, threads_), where);
  // The last level would store a convolution's kernel again in blocks of channels.
  check(api_, api_.SetSessionGraphOptimizationLevel(made, ORT_ENABLE_EXTENDED), where);
  const std::pair<const char*, const char*> entries[] = {
      {"session.disable_prepacking", "1"},
      {"optimization.constant_folding_max_output_size_in_bytes", kLargestFoldedBytes},
      {"session.model_external_initializers_file_folder_path", bundle_->path().c_str()},
  };
  for (const auto& [key, value] : entries)
    check(api_, api_.AddSessionConfigEntry(made, key, value), key);
  return options;
}

Owned<OrtValue> Environment::tensor(void* data, Type type, const std::vector<std::size_t>& shape,
                                    const std::string& where) const {
  const std::vector<std::int64_t> axes(shape.begin(), shape.end());
  std::size_t size_bytes = size_of(type);
  for (const std::size_t axis : shape) size_bytes *= axis;
  OrtValue* value = nullptr;
  check(api_,
        api_.CreateTensorWithDataAsOrtValue(memory_.get(), data, size_bytes, axes.data(),
                                            axes.size(), element_of(type), &value),
        where);
  return Owned<OrtValue>(value, Release<OrtValue>(api_.ReleaseValue));
}

Session::Session(const Environment& environment, const Stage& stage)
    : environment_(environment), stage_(stage) {
  const OrtApi& api = environment.api();
  const Manifest& manifest = environment.bundle().manifest();
  const std::vector<std::byte> graph =
      environment.bundle().read(manifest.graphs.at(environment.precision()).at(stage.name));
  const Owned<OrtSessionOptions> options = environment.options();
  // The very bytes that were checked and mapped: the file is not looked up by its name again.
  for (const std::string& name : tensors_of(stage)) {
    const Tensor& stored = environment.weights().tensor(name);
    initializers_.push_back(
        environment.tensor(const_cast<void*>(stored.data), stored.type, stored.shape, name));
    check(api, api.AddInitializer(options.get(), name.c_str(), initializers_.back().get()), name);
  }
  OrtSession* session = nullptr;
  check(api,
        api.CreateSessionFromArray(environment.get(), graph.data(), graph.size(), options.get(),
                                   &session),
        stage.name);
  session_ = Owned<OrtSession>(session, Release<OrtSession>(api.ReleaseSession));
}

void Session::run(std::size_t batch, const void* input, void* output) const {
  const OrtApi& api = environment_.api();
  // ONNX Runtime takes no constant memory, and leaves an input as it is.
  const Owned<OrtValue> x = environment_.tensor(const_cast<void*>(input), stage_.input.type,
                                                shape_of(batch, stage_.input), stage_.input.name);
  const Owned<OrtValue> y = environment_.tensor(output, stage_.output.type,
                                                shape_of(batch, stage_.output), stage_.output.name);
  const char* input_name = stage_.input.name.c_str();
  const char* output_name = stage_.output.name.c_str();
  const OrtValue* inputs[] = {x.get()};
  OrtValue* outputs[] = {y.get()};
  check(api, api.Run(session_.get(), nullptr, &input_name, inputs, 1, &output_name, 1, outputs),
        stage_.name);
}

}  // namespace tiedexport::internal::onnxruntime
