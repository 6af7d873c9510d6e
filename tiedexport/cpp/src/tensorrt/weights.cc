#include "tensorrt/weights.hpp"

#include <algorithm>
#include <utility>

#include "error.hpp"

namespace tiedexport::internal::tensorrt {
namespace {

constexpr std::size_t kAlignment = 256;  // what IExecutionContext::setTensorAddress asks for

std::size_t size_bytes_of(const Tensor& tensor) { return tensor.count * size_of(tensor.type); }

/// Lays the tensors out one behind the other; returns the bytes that they take.
std::size_t lay_out(const Weights& weights, std::map<std::string, std::size_t>* offsets) {
  std::size_t end = 0;
  for (const auto& [name, tensor] : weights.tensors()) {
    (*offsets)[name] = end;
    end += (size_bytes_of(tensor) + kAlignment - 1) / kAlignment * kAlignment;
  }
  return std::max(end, kAlignment);
}

template <class Shape>
std::string words(Type type, const Shape& shape) {
  std::string text = std::string(name_of(type)) + "[";
  for (const auto n : shape) text += (text.back() == '[' ? "" : ", ") + std::to_string(n);
  return text + "]";
}

}  // namespace

std::shared_ptr<const DeviceWeights> DeviceWeights::of(const Bundle& bundle, Type precision,
                                                       const std::shared_ptr<const Gpu>& gpu) {
  const std::string key =
      std::string("tensorrt weights ") + name_of(precision) + std::to_string(gpu->device().ordinal);
  return std::static_pointer_cast<const DeviceWeights>(bundle.once(key, [&] {
    return std::static_pointer_cast<void>(
        std::make_shared<DeviceWeights>(bundle.weights(precision), gpu));
  }));
}

DeviceWeights::DeviceWeights(std::shared_ptr<const Weights> weights, std::shared_ptr<const Gpu> gpu)
    : weights_(std::move(weights)),
      memory_(gpu, lay_out(*weights_, &offsets_), "the weights, which all stages share") {
  weights_->refuse_if_truncated();
  const Current current(*gpu);
  const Stream stream(gpu);
  for (const auto& [name, tensor] : weights_->tensors()) {
    if (tensor.count == 0) continue;
    stream.copy_in(memory_.address() + offsets_.at(name), tensor.data, size_bytes_of(tensor));
  }
  stream.wait();
}

Address DeviceWeights::address(const Binding& binding) const {
  const auto found = weights_->tensors().find(binding.name);
  const bool same =
      found != weights_->tensors().end() && found->second.type == binding.type &&
      std::equal(found->second.shape.begin(), found->second.shape.end(), binding.shape.begin(),
                 binding.shape.end(), [](std::size_t one, std::int64_t other) {
                   return other >= 0 && one == static_cast<std::size_t>(other);
                 });
  if (!same) {
    throw Error(
        TIEDEXPORT_CORRUPT,
        {"a plan asks for a weight that the bundle does not have", binding.name,
         found == weights_->tensors().end() ? "no such weight"
                                            : words(found->second.type, found->second.shape),
         words(binding.type, binding.shape), "tiedexport build model.pt"});
  }
  return memory_.address() + offsets_.at(binding.name);
}

}  // namespace tiedexport::internal::tensorrt
