#include "onnxruntime/library.hpp"

#include <dlfcn.h>

#include <cstdlib>

namespace tiedexport::internal::onnxruntime {
namespace {

constexpr const char* kFile = "libonnxruntime.so.1";

/// 1.22 brought the limit on what constant folding may store. Newer libraries have every call of
/// it, and a table asked for by this number is laid out the same in each.
constexpr int kOldest = 22;

/// 22 of "1.22.0"; -1 of anything else than a version 1.
int minor_of(const std::string& version) {
  if (version.compare(0, 2, "1.") != 0) return -1;
  char* end = nullptr;
  const long minor = std::strtol(version.c_str() + 2, &end, 10);
  return end == version.c_str() + 2 || minor < 0 || minor > 10000 ? -1 : static_cast<int>(minor);
}

Library refused(const std::string& version, const std::string& reason, bool is_chosen) {
  const std::string chosen =
      "let " + std::string(kVariable) + " name a libonnxruntime.so of ONNX Runtime 1.22 or newer";
  return {nullptr, version, reason,
          is_chosen ? chosen
                    : "install ONNX Runtime 1.22 or newer where the loader finds " +
                          std::string(kFile) + ", or " + chosen};
}

}  // namespace

Library load_library() {
  const char* chosen = std::getenv(kVariable);
  const bool is_chosen = chosen != nullptr && *chosen != '\0';
  const std::string file = is_chosen ? chosen : kFile;
  // It leaves threads and thread-local state behind, so it is never unloaded.
  void* opened = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (opened == nullptr) {
    const char* error = dlerror();
    return refused("", error == nullptr ? file + " does not load" : error, is_chosen);
  }
  const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(opened, "OrtGetApiBase"));
  if (base == nullptr) return refused("", file + " is no ONNX Runtime library", is_chosen);
  const std::string version = base()->GetVersionString();
  // Asked for a table that it does not have, ONNX Runtime would print.
  if (minor_of(version) < kOldest)
    return refused(version, file + " is ONNX Runtime " + version, is_chosen);
  const OrtApi* api = base()->GetApi(kOldest);
  if (api == nullptr) return refused(version, file + " lacks the interface of 1.22", is_chosen);
  return {api, version, "", ""};
}

}  // namespace tiedexport::internal::onnxruntime
