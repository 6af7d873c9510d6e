// AMX emulated: tiles of registers in plain C++, by Intel's definition of their instructions
// (manual, volume 2: TILELOADD, TILESTORED, TDPBF16PS), for CPUs that have none.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "native/products.hpp"

namespace tiedexport::internal::native {

class EmulatedTiles {
 public:
  static constexpr Simd kSimd = Simd::scalar;

  template <int kTile>
  void zero() {
    tiles_[kTile] = {};
  }
  template <int kTile>
  void load(const void* address, std::size_t stride) {
    for (std::size_t row = 0; row < 16; ++row)
      std::memcpy(tiles_[kTile][row].data(), static_cast<const std::byte*>(address) + row * stride,
                  64);
  }
  template <int kTile>
  void store(void* address, std::size_t stride) const {
    for (std::size_t row = 0; row < 16; ++row)
      std::memcpy(static_cast<std::byte*>(address) + row * stride, tiles_[kTile][row].data(), 64);
  }

  /// TDPBF16PS: even and odd products of a row are added up apart, then both to the sum.
  template <int kSums, int kA, int kB>
  void multiply_add() {
    for (std::size_t m = 0; m < 16; ++m) {
      float odd_and_even[2][16] = {};
      for (std::size_t k = 0; k < 16; ++k) {
        for (std::size_t odd = 0; odd < 2; ++odd) {
          const float a = element(tiles_[kA][m], 2 * k + odd);
          for (std::size_t n = 0; n < 16; ++n) {
            float& sum = odd_and_even[odd][n];
            sum = flushed(std::fma(a, element(tiles_[kB][k], 2 * n + odd), sum));
          }
        }
      }
      std::array<float, 16> sums;
      std::memcpy(sums.data(), tiles_[kSums][m].data(), 64);
      for (std::size_t n = 0; n < 16; ++n)
        sums[n] = flushed(flushed(sums[n]) + flushed(odd_and_even[0][n] + odd_and_even[1][n]));
      std::memcpy(tiles_[kSums][m].data(), sums.data(), 64);
    }
  }

 private:
  using Row = std::array<std::byte, 64>;

  /// Denormal numbers count as zero, before and after.
  static float flushed(float value) {
    return std::abs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0F, value) : value;
  }
  static float element(const Row& row, std::size_t index) {
    std::uint16_t stored;
    std::memcpy(&stored, row.data() + 2 * index, sizeof(stored));
    const std::uint32_t bits = static_cast<std::uint32_t>(stored) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return flushed(value);
  }

  std::array<std::array<Row, 16>, 8> tiles_{};
};

}  // namespace tiedexport::internal::native
