// Sizes of values and windows, from numbers that nobody has checked.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "native/convolution.hpp"

namespace tiedexport::internal::native {

using Shape = std::vector<std::size_t>;

/// What a layer says of one axis of its convolution.
struct Taken {
  std::size_t kernel, stride, pad, output_padding;
};

/// A layer, or an end of a stage, that sizes are checked of; its name is for messages.
class LayerPlace {
 public:
  explicit LayerPlace(std::string name) : name_(std::move(name)) {}

  /// Throws Error (CORRUPT); `expected_words` stands for `expected` where it is not "".
  [[noreturn]] void refuse(const std::string& what, const Shape& got, const Shape& expected,
                           const std::string& expected_words = "") const;
  /// How many numbers a shape holds; refuses 0 and more than any memory holds.
  std::size_t count_of(const Shape& shape) const;
  /// The windows over an image of that size: ONNX's Conv.
  Window window_over(std::size_t image, const Taken& taken) const;
  /// The image under a grid of that many windows: ONNX's ConvTranspose.
  Window window_onto(std::size_t grid, const Taken& taken) const;

 private:
  void check(const Taken& taken) const;

  std::string name_;
};

}  // namespace tiedexport::internal::native
