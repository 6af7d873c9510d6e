// A deserialised plan, and how each stage runs on it.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tensorrt/gpu.hpp"
#include "tensorrt/library.hpp"
#include "tensorrt/weights.hpp"

namespace tiedexport::internal::tensorrt {

/// How a stage runs on a plan.
struct Route {
  std::string source, target;  // the tensors that take its input and give its output
  // For each execution of the plan, the input that has the batch; any other is empty.
  std::vector<std::string> steps;
  // The tensors in the middle. Where there are two steps, the first writes and the second reads
  // them, so they are one buffer of `code_bytes` a row; with one step they are empty.
  std::vector<std::string> between;
  std::size_t code_bytes = 0;
};

/// The batches that a profile takes.
struct Batches {
  std::size_t smallest = 1, largest = 1;
};

/// The profile to run some rows in, and how many rows to run there.
struct Chosen {
  std::size_t profile = 0, rows = 0;
};

/// A plan in TensorRT's hands, with the device address of every weight that it takes.
class Engine {
 public:
  /// `weights` is for plans that hold none. Throws Error (BACKEND_FAILED, CORRUPT).
  Engine(std::shared_ptr<const Gpu> gpu, const Library& library, const Plan& plan,
         const std::vector<std::byte>& serialised, std::shared_ptr<const DeviceWeights> weights);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const std::shared_ptr<const Gpu>& gpu() const { return gpu_; }
  const std::string& file() const { return plan_.file; }
  const std::map<std::string, Address>& weight_addresses() const { return addresses_; }
  std::vector<std::string> inputs() const;  // without weights
  /// The dimensions of a tensor, the first being the batch.
  nvinfer1::Dims shape(const std::string& tensor) const;

  const std::vector<Batches>& profiles() const { return profiles_; }
  std::size_t largest() const;  // of any profile
  /// For `rows` <= largest(): the narrowest profile that holds them, or the one that wastes least
  /// where they must be filled up to a profile's smallest batch.
  Chosen profile_for(std::size_t rows) const;
  /// Throws Error (CORRUPT) if the plan's tensors are not those of the stage.
  Route route(const Stage& stage) const;
  /// A new context in that profile. Several use one profile at once: TensorRT allows that since 10.
  std::unique_ptr<nvinfer1::IExecutionContext> context(std::size_t profile,
                                                       const Stream& stream) const;

 private:
  Engine(std::shared_ptr<const Gpu> gpu, const Plan& plan,
         std::shared_ptr<const DeviceWeights> weights);
  void find_batches(const Messages& messages);
  void check_names(const Messages& messages) const;
  const Binding* data(const std::string& name) const;
  std::size_t elements(const std::string& tensor) const;

  std::shared_ptr<const Gpu> gpu_;
  Plan plan_;
  std::shared_ptr<const DeviceWeights> weights_;
  std::map<std::string, Address> addresses_;
  // The engine refers to the runtime that made it, so it goes first.
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::vector<Batches> profiles_;
};

}  // namespace tiedexport::internal::tensorrt
