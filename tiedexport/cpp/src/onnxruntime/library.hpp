// ONNX Runtime's library, loaded when it is first asked for and then kept by the process.
#pragma once

#include <onnxruntime_c_api.h>

#include <string>

namespace tiedexport::internal::onnxruntime {

/// Names another file than the one that the loader finds by itself.
constexpr const char* kVariable = "TIEDEXPORT_ONNXRUNTIME";

/// The loaded library, or why there is none.
struct Library {
  const OrtApi* api = nullptr;
  std::string version, reason, remedy;
};

/// Never throws for a library that is missing, foreign or too old: `reason` then says so.
Library load_library();

}  // namespace tiedexport::internal::onnxruntime
