// The weights of a bundle on a device, once for all its sessions.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "bundle.hpp"
#include "tensorrt/gpu.hpp"

namespace tiedexport::internal::tensorrt {

/// Every tensor of one weights file in one buffer, each aligned as TensorRT asks for it.
class DeviceWeights {
 public:
  /// Those of `bundle` on that device: uploaded for the first session, shared by the others.
  static std::shared_ptr<const DeviceWeights> of(const Bundle& bundle, Type precision,
                                                 const std::shared_ptr<const Gpu>& gpu);

  /// Throws Error (OUT_OF_MEMORY, BACKEND_FAILED, CORRUPT if the file was truncated).
  DeviceWeights(std::shared_ptr<const Weights> weights, std::shared_ptr<const Gpu> gpu);

  /// Where the weight lies that a plan asks for. Throws Error (CORRUPT) if there is none of that
  /// name, type and shape.
  Address address(const Binding& binding) const;
  std::size_t size_bytes() const { return memory_.size_bytes(); }

 private:
  std::shared_ptr<const Weights> weights_;
  std::map<std::string, std::size_t> offsets_;
  DeviceMemory memory_;
};

}  // namespace tiedexport::internal::tensorrt
