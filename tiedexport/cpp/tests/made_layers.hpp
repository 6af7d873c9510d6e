// Layers and stages, written short.
#pragma once

#include <array>
#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "stored_model.hpp"

namespace tiedexport::internal {

using Sizes = std::vector<std::size_t>;

inline Layer plain(Op op) {
  Layer layer;
  layer.op = op;
  return layer;
}
inline Layer dense(const std::string& weight, const std::string& bias, bool transposed = false) {
  Layer layer = plain(Op::dense);
  layer.weight = weight;
  layer.bias = bias;
  layer.transposed = transposed;
  return layer;
}
inline Layer reshape(const Sizes& shape) {
  Layer layer = plain(Op::reshape);
  layer.shape = shape;
  return layer;
}
/// Strides, pads and output padding, height first.
inline Layer convolution(Op op, const std::string& weight, const std::string& bias,
                         const std::array<std::size_t, 6>& numbers) {
  Layer layer = dense(weight, bias);
  layer.op = op;
  layer.strides = {numbers[0], numbers[1]};
  layer.pads = {numbers[2], numbers[3]};
  layer.output_padding = {numbers[4], numbers[5]};
  return layer;
}

/// A stage and the tensors that its layers name.
struct Model {
  StoredTensors tensors;
  Stage stage{"autoencoder", {"input", Type::fp32, {}}, {"output", Type::fp32, {}}, {}};
};

/// widths[0] → … → widths[n] → … → widths[0]; tied, or with weights of the decoder's own.
inline Model stack(const Sizes& widths, Type type, Op activation, bool tied, std::mt19937& random) {
  Model model;
  std::vector<Layer>& layers = model.stage.layers;
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
    const std::string name = std::to_string(i);
    model.tensors["w" + name] = random_tensor(type, {widths[i + 1], widths[i]}, random);
    model.tensors["b" + name] = random_tensor(type, {widths[i + 1]}, random);
    model.tensors["c" + name] = random_tensor(type, {widths[i]}, random);
    layers.push_back(dense("w" + name, "b" + name));
    layers.push_back(plain(activation));
  }
  for (std::size_t i = widths.size() - 1; i-- > 0;) {
    const std::string name = std::to_string(i);
    if (!tied) model.tensors["v" + name] = random_tensor(type, {widths[i], widths[i + 1]}, random);
    layers.push_back(dense((tied ? "w" : "v") + name, "c" + name, tied));
    layers.push_back(plain(i == 0 ? Op::sigmoid : activation));
  }
  model.stage.input.element_shape = model.stage.output.element_shape = {widths[0]};
  return model;
}

}  // namespace tiedexport::internal
