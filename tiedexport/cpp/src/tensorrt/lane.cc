#include "tensorrt/lane.hpp"

#include <algorithm>

namespace tiedexport::internal::tensorrt {
namespace {

constexpr std::size_t kEmptyBytes = 256;  // an empty tensor still needs an address

}  // namespace

// Once the other constructor is done, the destructor runs even where this one throws.
Lane::Lane(const Engine& engine, const Route& route, std::size_t profile, const Stream& stream)
    : Lane(engine, route) {
  const bool carried = route.steps.size() > 1;
  if (!route.between.empty()) {
    const std::size_t rows = carried ? engine.profiles()[profile].largest : 0;
    between_ = std::make_unique<DeviceMemory>(
        engine.gpu(), std::max(route.code_bytes * rows, kEmptyBytes), "codes of " + engine.file());
  }
  for (std::size_t step = 0; step < route.steps.size(); ++step) {
    contexts_.push_back(engine.context(profile, stream));
  }
  for (const auto& [name, address] : engine.weight_addresses()) bind(name, address);
  for (const std::string& name : route.between) bind(name, between_->address());
}

Lane::~Lane() {
  release_on(*engine_.gpu(), [this](const DriverCalls&) { contexts_.clear(); });
}

void Lane::set_rows(std::size_t rows) {
  if (rows == rows_) return;
  rows_ = 0;
  const Messages messages;
  for (std::size_t step = 0; step < contexts_.size(); ++step) {
    for (const std::string& name : engine_.inputs()) {
      nvinfer1::Dims dims = engine_.shape(name);
      dims.d[0] = name == route_.steps[step] ? static_cast<std::int64_t>(rows) : 0;
      if (!contexts_[step]->setInputShape(name.c_str(), dims)) {
        throw messages.error(name + " refused a batch of " + std::to_string(dims.d[0]),
                             engine_.file());
      }
    }
  }
  rows_ = rows;
}

void Lane::set_addresses(Address source, Address target) {
  bind(route_.source, source);
  bind(route_.target, target);
}

void Lane::enqueue(Handle stream) {
  const Messages messages;
  for (const auto& context : contexts_) {
    if (!context->enqueueV3(static_cast<cudaStream_t>(stream))) {
      throw messages.error("TensorRT could not enqueue the execution", engine_.file());
    }
  }
}

void Lane::bind(const std::string& tensor, Address address) {
  const Messages messages;
  for (const auto& context : contexts_) {
    if (!context->setTensorAddress(tensor.c_str(), reinterpret_cast<void*>(address))) {
      throw messages.error("TensorRT refused the address of " + tensor, engine_.file());
    }
  }
}

}  // namespace tiedexport::internal::tensorrt
