// Rows of backends that this source does not have yet.
#include "backend.hpp"

namespace tiedexport::internal {
namespace {

Availability absent() { return {false, "", "not compiled", ""}; }
std::string refusal(const Bundle&, Type) { return "not compiled"; }
std::unique_ptr<Backend> open(std::shared_ptr<const Bundle>, const Options&) { return nullptr; }

}  // namespace

__attribute__((weak)) BackendRow onnxruntime_backend() {
  return {"onnxruntime", 20, absent, refusal, open};
}

}  // namespace tiedexport::internal
