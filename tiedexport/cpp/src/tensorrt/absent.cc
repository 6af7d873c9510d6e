// The row of TensorRT in a library that was built without its headers; the build says which it
// missed.
#include "backend.hpp"
#include "error.hpp"

namespace tiedexport::internal {
namespace {

constexpr const char* kReason = "not compiled: " TIEDEXPORT_TENSORRT_MISSING;
constexpr const char* kRemedy =
    "build with -DTensorRT_INCLUDE_DIR=FOLDER, the folder that holds NvInfer.h, and "
    "-DCUDAToolkit_INCLUDE_DIR=FOLDER, that of cuda_runtime_api.h";

Availability availability() { return {false, "", kReason, kRemedy}; }

std::string refusal(const Bundle&, Type) { return kReason; }

std::unique_ptr<Backend> open(std::shared_ptr<const Bundle>, const Options&) {
  throw Error(TIEDEXPORT_UNAVAILABLE, {"tensorrt cannot run", "", kReason, "", kRemedy});
}

}  // namespace

BackendRow tensorrt_backend() {
  return {"tensorrt", 5, availability, refusal, open, {Type::fp16, Type::bf16, Type::fp32}};
}

}  // namespace tiedexport::internal
