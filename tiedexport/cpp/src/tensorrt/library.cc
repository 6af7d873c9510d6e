#include "tensorrt/library.hpp"

#include <dlfcn.h>

#include <algorithm>

#include "tensorrt/driver.hpp"

namespace tiedexport::internal::tensorrt {
namespace {

#ifdef TRT_MAJOR_RTX
constexpr const char *kPackage = "tensorrt_rtx", *kFiles = "libtensorrt_rtx.so.";
constexpr const char* kInstall = "install TensorRT-RTX ";
#else
constexpr const char *kPackage = "tensorrt", *kFiles = "libnvinfer.so.";
constexpr const char* kInstall = "install TensorRT ";
#endif
constexpr std::int32_t kHeaders =
    NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;

thread_local Messages* messages_here = nullptr;

class Logger final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const nvinfer1::AsciiChar* message) noexcept override {
    if (severity <= Severity::kERROR && messages_here != nullptr && message != nullptr) {
      messages_here->add(message);
    }
  }
};

/// TensorRT keeps the first logger it is given for the life of the process: this one has no state,
/// and outlives everything.
Logger& logger() {
  static Logger& only = *new Logger;
  return only;
}

/// "11.1.0.106", or "" if the library does not tell.
std::string version_of(void* library) {
  std::string version;
  for (const char* part : {"Major", "Minor", "Patch", "Build"}) {
    const std::string name = std::string("getInferLib") + part + "Version";
    const auto ask = reinterpret_cast<std::int32_t (*)()>(dlsym(library, name.c_str()));
    if (ask == nullptr) return "";
    version += (version.empty() ? "" : ".") + std::to_string(ask());
  }
  return version;
}

/// The CUDA runtime that a library is linked to, 0 if it hides that. It needs no device to answer.
int cuda_of(void* library) {
  int number = 0;
  const auto ask = reinterpret_cast<int (*)(int*)>(dlsym(library, "cudaRuntimeGetVersion"));
  return ask != nullptr && ask(&number) == 0 ? number : 0;
}

Library refused(Library library, const std::string& reason, const std::string& remedy) {
  library.create_runtime = nullptr;
  library.reason = reason;
  library.remedy = remedy;
  return library;
}

}  // namespace

Library load_library(int cuda) {
  Library library;
  library.package = kPackage;
  const std::string major = std::to_string(NV_TENSORRT_MAJOR);
  const std::string file = kFiles + major;
  const std::string install = kInstall + major + ".x and put the folder of " + file +
                              " into LD_LIBRARY_PATH (this was compiled for that major alone)";
  void* opened = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    const char* error = dlerror();
    return refused(library, file + " was not found (" + (error == nullptr ? "" : error) + ")",
                   install);
  }
  library.version = version_of(opened);
  library.create_runtime = reinterpret_cast<void* (*)(void*, std::int32_t)>(
      dlsym(opened, "createInferRuntime_INTERNAL"));
  if (library.version.empty() || library.create_runtime == nullptr) {
    return refused(library, file + " is no TensorRT library, or a broken one", install);
  }
  if (library.version.compare(0, major.size() + 1, major + ".") != 0) {
    return refused(library, file + " is version " + library.version, install);
  }
  const int built = cuda_of(opened);
  if (built / 1000 > cuda / 1000) {
    return refused(
        library,
        "the driver runs programs up to CUDA " + cuda_version(cuda) + ", and " + file +
            " uses CUDA " + cuda_version(built),
        "update the NVIDIA driver, or install a TensorRT for CUDA " + std::to_string(cuda / 1000));
  }
  return library;
}

Messages::Messages() : outer_(messages_here) { messages_here = this; }

Messages::~Messages() { messages_here = outer_; }

void Messages::add(const char* message) noexcept {
  try {
    const std::string line(message);
    if (std::find(lines_.begin(), lines_.end(), line) == lines_.end()) lines_.push_back(line);
  } catch (...) {
    // No memory for TensorRT's words: the error is raised without them.
    return;
  }
}

Error Messages::error(const std::string& what, const std::string& where,
                      const std::string& hint) const {
  std::string said;
  for (const std::string& line : lines_) said += (said.empty() ? "" : "; ") + line;
  if (said.empty()) said = "TensorRT gave no reason";
  return Error(TIEDEXPORT_BACKEND_FAILED, {what, where, said, "", hint});
}

std::unique_ptr<nvinfer1::IRuntime> create_runtime(const Library& library) {
  const Messages messages;
  std::unique_ptr<nvinfer1::IRuntime> runtime(
      static_cast<nvinfer1::IRuntime*>(library.create_runtime(&logger(), kHeaders)));
  if (runtime == nullptr) {
    throw messages.error("TensorRT " + library.version + " makes no runtime", "",
                         "nvidia-smi must work");
  }
  return runtime;
}

}  // namespace tiedexport::internal::tensorrt
