// Products of a few samples: what the kernels of each instruction set are given, and give.
#pragma once

#include <cstddef>

#include "native/products.hpp"

namespace tiedexport::internal::native::stream {

/// Samples side by side, by vectors: [columns / lanes, samples, lanes], zeros behind the last
/// column; so a kernel needs one address for all of them.
struct Panels {
  float* data;
  std::size_t samples;
  std::size_t width;  // columns that stay in L1 while rows of W pass by
};

/// What a kernel calls from memory while it computes.
enum class Ahead {
  cached,   // nothing: W is in cache
  nothing,  // nor here, since the CPU foresees what comes
  next,     // the rows or columns that it comes to next
  behind    // half of as many rows that lie behind these, which were read just before
};

/// Rows of W, or a stretch of columns of them.
struct Rows {
  const void* data;
  Type type;
  std::size_t count, columns, stride;  // in elements
  Ahead ahead;
};

constexpr std::size_t kMostRows = 32;  // in one call of a kernel

/// What one instruction set has.
struct Kernels {
  std::size_t lanes;
  /// Samples that a kernel takes at once: the smallest of its sizes that holds so many, or the
  /// largest.
  std::size_t (*block)(std::size_t samples);
  /// Rows that it takes at once with a block of so many samples.
  std::size_t (*rows)(std::size_t block);
  /// z[i, b] = Σ_k x[b, k] w[i, k]
  void (*dots)(const Rows& w, const Panels& x, float* z);
  /// out[b, k] += Σ_i z[i, b] w[i, k]
  void (*add_rows)(const Rows& w, const float* z, const Panels& out);
};

Kernels kernels(Simd simd);

}  // namespace tiedexport::internal::native::stream
