// Convolutions over two axes as products with their weight where it lies, in both directions.
#pragma once

#include <cstddef>

#include "native/products.hpp"

namespace tiedexport::internal::native {

/// One axis: windows of `kernel` pixels over `image` pixels with `pad` more at each end, one
/// every `stride`; `grid` of them.
struct Window {
  std::size_t image, grid, kernel, stride, pad;
};

/// Between an image [image_channels, y.image, x.image] and a grid of its windows [grid_channels,
/// y.grid, x.grid]. ONNX's Conv maps the image to the grid, and ConvTranspose, its adjoint, the
/// grid to the image; the weight is [grid_channels, image_channels, y.kernel, x.kernel] for both.
struct Convolution {
  std::size_t image_channels, grid_channels;
  Window y, x;
};

/// A convolution of `batch` samples of fp32, all in NCHW order.
struct ConvolutionProduct {
  Convolution shape;
  Matrix w;  // [grid_channels, image_channels · y.kernel · x.kernel]
  std::size_t batch;
  const float* in;
  const float* bias;  // one a channel of the output, or null
  Activation activation;
  float* out;
  float* staging;  // of staging_count(shape) numbers
};

/// How much of the windows, unfolded, is in memory at a time.
std::size_t staging_count(const Convolution& shape);
void convolve(const ConvolutionProduct& product, Context& context);
void convolve_transposed(const ConvolutionProduct& product, Context& context);

}  // namespace tiedexport::internal::native
