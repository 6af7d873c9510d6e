// TensorRT's runtime library, loaded when it is first asked for, and what it says.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

#include "error.hpp"

namespace tiedexport::internal::tensorrt {

/// The library that fits the headers this was compiled with, or why it cannot be used. TensorRT's
/// interfaces differ from major to major, so the headers decide the major.
struct Library {
  std::string package;  // as manifests name it: "tensorrt", "tensorrt_rtx"
  std::string version;  // "11.1.0.106"
  std::string reason, remedy;
  void* (*create_runtime)(void* logger, std::int32_t version) = nullptr;
};

/// Loads it; it stays loaded. To be called with a driver only: without one, TensorRT may hand out
/// invalid pointers. `cuda` is what the driver serves, as it has it (13020 is 13.2).
Library load_library(int cuda);

/// What TensorRT logs as errors in this thread while this is alive: its calls return only null or
/// false. One in another's life takes over.
class Messages {
 public:
  Messages();
  ~Messages();
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;

  void add(const char* message) noexcept;
  /// An Error (BACKEND_FAILED) in TensorRT's words.
  Error error(const std::string& what, const std::string& where,
              const std::string& hint = "") const;

 private:
  Messages* outer_;
  std::vector<std::string> lines_;
};

/// Throws Error (BACKEND_FAILED).
std::unique_ptr<nvinfer1::IRuntime> create_runtime(const Library& library);

}  // namespace tiedexport::internal::tensorrt
