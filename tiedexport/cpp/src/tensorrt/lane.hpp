// The contexts in which a stage runs in one profile.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "tensorrt/engine.hpp"

namespace tiedexport::internal::tensorrt {

/// A context for each step of a stage, with the weights bound: shapes then change only with the
/// batch, and a CUDA graph may hold all steps. One thread at a time.
class Lane {
 public:
  Lane(const Engine& engine, const Route& route, std::size_t profile, const Stream& stream);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  /// The rows of the next execution. Throws Error (BACKEND_FAILED).
  void set_rows(std::size_t rows);
  std::size_t rows() const { return rows_; }
  void set_addresses(Address source, Address target);
  void enqueue(Handle stream);

 private:
  Lane(const Engine& engine, const Route& route) : engine_(engine), route_(route) {}
  void bind(const std::string& tensor, Address address);

  const Engine& engine_;
  const Route& route_;
  std::unique_ptr<DeviceMemory> between_;  // outlives the contexts that refer to it
  std::vector<std::unique_ptr<nvinfer1::IExecutionContext>> contexts_;
  std::size_t rows_ = 0;
};

}  // namespace tiedexport::internal::tensorrt
