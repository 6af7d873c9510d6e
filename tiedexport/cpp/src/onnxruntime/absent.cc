// The row of ONNX Runtime in a library that was built without its header; the build says why.
#include "backend.hpp"
#include "error.hpp"

namespace tiedexport::internal {
namespace {

constexpr const char* kReason = "not compiled: " TIEDEXPORT_ONNXRUNTIME_MISSING;
constexpr const char* kRemedy =
    "build with -DONNXRUNTIME_INCLUDE_DIR=FOLDER, the folder that holds onnxruntime_c_api.h";

Availability availability() { return {false, "", kReason, kRemedy}; }

std::string refusal(const Bundle&, Type) { return kReason; }

std::unique_ptr<Backend> open(std::shared_ptr<const Bundle>, const Options&) {
  throw Error(TIEDEXPORT_UNAVAILABLE, {"onnxruntime cannot run", "", kReason, "", kRemedy});
}

}  // namespace

BackendRow onnxruntime_backend() { return {"onnxruntime", 20, availability, refusal, open}; }

}  // namespace tiedexport::internal
