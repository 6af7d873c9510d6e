#include "native/convolution.hpp"

#include <algorithm>

namespace tiedexport::internal::native {
namespace {

/// Numbers unfolded at a time: 2 MiB of fp32, about what stays in cache with a tile of the weight.
constexpr std::size_t kUnfolded = std::size_t{1} << 19;
constexpr std::size_t kFewestRows = 16;  // with fewer, the weight would be swept too often

std::size_t pixels_of(const Convolution& shape) { return shape.y.image * shape.x.image; }
std::size_t positions_of(const Convolution& shape) { return shape.y.grid * shape.x.grid; }
std::size_t window_of(const Convolution& shape) {
  return shape.image_channels * shape.y.kernel * shape.x.kernel;
}
std::size_t rows_at_a_time(const Convolution& shape) {
  return std::max(kUnfolded / (window_of(shape) + shape.grid_channels), kFewestRows);
}

/// The taps [begin, end) of a window that meet the image, and the pixel that `begin` meets.
struct Taps {
  std::size_t begin, end, pixel;
};
Taps taps_at(const Window& window, std::size_t position) {
  const std::size_t origin = position * window.stride;  // in the padded image
  const std::size_t begin =
      origin < window.pad ? std::min(window.pad - origin, window.kernel) : std::size_t{0};
  const std::size_t image_end = window.pad + window.image;
  const std::size_t end =
      origin < image_end ? std::min(image_end - origin, window.kernel) : std::size_t{0};
  if (end <= begin) return {0, 0, 0};
  return {begin, end, origin + begin - window.pad};
}

/// A window of the batch: its sample, and its place in the grid.
struct Position {
  std::size_t sample, y, x, in_grid;
};
Position position_of(const Convolution& shape, std::size_t row) {
  const std::size_t in_grid = row % positions_of(shape);
  return {row / positions_of(shape), in_grid / shape.x.grid, in_grid % shape.x.grid, in_grid};
}

/// Calls part(begin, end) on each worker's share of `count`.
template <class Part>
void for_shares(Pool& pool, std::size_t count, const Part& part) {
  pool.run([&](int index) {
    const Span span = share(count, 1, index, pool.size());
    if (span.begin < span.end) part(span.begin, span.end);
  });
}

/// row[c, i, j] = pixel under tap (i, j) of channel c, or 0 where there is padding.
void unfold(const Convolution& shape, const float* images, std::size_t row, float* window) {
  const Position at = position_of(shape, row);
  const Taps y = taps_at(shape.y, at.y), x = taps_at(shape.x, at.x);
  const float* image = images + at.sample * shape.image_channels * pixels_of(shape);
  std::fill_n(window, window_of(shape), 0.0F);
  for (std::size_t c = 0; c < shape.image_channels; ++c) {
    for (std::size_t i = y.begin; i < y.end; ++i) {
      const float* pixels = image + (y.pixel + i - y.begin) * shape.x.image + x.pixel;
      std::copy_n(pixels, x.end - x.begin, window + i * shape.x.kernel + x.begin);
    }
    image += pixels_of(shape);
    window += shape.y.kernel * shape.x.kernel;
  }
}

/// Adds channel c of a window where it came from: the adjoint of `unfold`.
void fold(const Convolution& shape, const float* window, std::size_t row, std::size_t c,
          float* images) {
  const Position at = position_of(shape, row);
  const Taps y = taps_at(shape.y, at.y), x = taps_at(shape.x, at.x);
  float* image = images + (at.sample * shape.image_channels + c) * pixels_of(shape);
  window += c * shape.y.kernel * shape.x.kernel;
  for (std::size_t i = y.begin; i < y.end; ++i) {
    float* pixels = image + (y.pixel + i - y.begin) * shape.x.image + x.pixel;
    const float* taps = window + i * shape.x.kernel + x.begin;
    for (std::size_t j = 0; j < x.end - x.begin; ++j) pixels[j] += taps[j];
  }
}

/// Where channel 0 of a position is in the grid; the next channel is positions_of(shape) further.
std::size_t in_grid(const Convolution& shape, std::size_t row) {
  const Position at = position_of(shape, row);
  return at.sample * shape.grid_channels * positions_of(shape) + at.in_grid;
}

/// Sets every pixel of an image to its channel's bias, for windows to be added.
void begin_images(const ConvolutionProduct& product, Pool& pool) {
  const Convolution& shape = product.shape;
  const std::size_t planes = product.batch * shape.image_channels;
  for_shares(pool, planes, [&](std::size_t begin, std::size_t end) {
    for (std::size_t plane = begin; plane < end; ++plane) {
      const std::size_t c = plane % shape.image_channels;
      const float bias = product.bias == nullptr ? 0.0F : product.bias[c];
      std::fill_n(product.out + plane * pixels_of(shape), pixels_of(shape), bias);
    }
  });
}

}  // namespace

std::size_t staging_count(const Convolution& shape) {
  return rows_at_a_time(shape) * (window_of(shape) + shape.grid_channels);
}

void convolve(const ConvolutionProduct& product, Context& context) {
  const Convolution& shape = product.shape;
  const std::size_t rows = product.batch * positions_of(shape), step = rows_at_a_time(shape);
  float* const windows = product.staging;
  float* const values = windows + step * window_of(shape);
  for (std::size_t first = 0; first < rows; first += step) {
    const std::size_t count = std::min(step, rows - first);
    for_shares(context.pool, count, [&](std::size_t begin, std::size_t end) {
      for (std::size_t row = begin; row < end; ++row)
        unfold(shape, product.in, first + row, windows + row * window_of(shape));
    });
    context.scratch.rewind();
    encode({product.w, count, windows, product.bias, product.activation, values}, context);
    for_shares(context.pool, count, [&](std::size_t begin, std::size_t end) {
      for (std::size_t row = begin; row < end; ++row) {
        float* out = product.out + in_grid(shape, first + row);
        for (std::size_t c = 0; c < shape.grid_channels; ++c)
          out[c * positions_of(shape)] = values[row * shape.grid_channels + c];
      }
    });
  }
}

void convolve_transposed(const ConvolutionProduct& product, Context& context) {
  const Convolution& shape = product.shape;
  const std::size_t rows = product.batch * positions_of(shape), step = rows_at_a_time(shape);
  float* const windows = product.staging;
  float* const values = windows + step * window_of(shape);
  begin_images(product, context.pool);
  for (std::size_t first = 0; first < rows; first += step) {
    const std::size_t count = std::min(step, rows - first);
    for_shares(context.pool, count, [&](std::size_t begin, std::size_t end) {
      for (std::size_t row = begin; row < end; ++row) {
        const float* in = product.in + in_grid(shape, first + row);
        for (std::size_t c = 0; c < shape.grid_channels; ++c)
          values[row * shape.grid_channels + c] = in[c * positions_of(shape)];
      }
    });
    context.scratch.rewind();
    decode({product.w, count, values, nullptr, Activation::none, windows}, context);
    // Windows overlap within a channel only, and a channel is one worker's: no two threads add to
    // one pixel, and its sum has one order.
    for_shares(context.pool, shape.image_channels, [&](std::size_t begin, std::size_t end) {
      for (std::size_t row = 0; row < count; ++row)
        for (std::size_t c = begin; c < end; ++c)
          fold(shape, windows + row * window_of(shape), first + row, c, product.out);
    });
  }
  const std::size_t pixels = product.batch * shape.image_channels * pixels_of(shape);
  for_shares(context.pool, pixels, [&](std::size_t begin, std::size_t end) {
    activate(product.activation, product.out + begin, end - begin, context.simd);
  });
}

}  // namespace tiedexport::internal::native
