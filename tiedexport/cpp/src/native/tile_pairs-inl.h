// Units of two bfloat16, which _mm512_dpbf16_ps multiplies and adds to one fp32. The instruction
// takes denormal numbers for zero, as do the bfloat16 products of torch that use it.
#include <immintrin.h>

TIEDEXPORT_BEFORE_BF16();
namespace tiedexport::internal::native::tile::HWY_NAMESPACE {
namespace {
namespace pair {

constexpr std::size_t kElements = 2, kTileRows = kTileUnits * kElements;
constexpr bool made_of_units(Type type) { return type == Type::bf16; }
constexpr bool staged_by_blocks(Type) { return true; }

HWY_INLINE Vector multiply_add(Vector a, Vector b, Vector sum) {
  return Vector{_mm512_dpbf16_ps(sum.raw, (__m512bh)a.raw, (__m512bh)b.raw)};
}

/// The upper half, rounded to nearest even; NaN stays NaN.
HWY_INLINE std::uint32_t rounded(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (value != value) return bits >> 16 | 0x40U;
  return (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
}

HWY_INLINE float unit_of(const float* element, std::size_t left) {
  const std::uint32_t bits = rounded(element[0]) | (left > 1 ? rounded(element[1]) << 16 : 0);
  float unit;
  std::memcpy(&unit, &bits, sizeof(unit));
  return unit;
}

/// A line of units from `left` elements on, rounded as `unit_of` rounds, but for denormal numbers.
HWY_INLINE void line_of_units(const float* elements, std::size_t left, float* line) {
  static_assert(kLineUnits == kLanes, "two vectors of elements make a line");
  const std::size_t first = std::min(left, kLanes), second = std::min(left - first, kLanes);
  const auto low = static_cast<__mmask16>((1U << first) - 1U);
  const auto high = static_cast<__mmask16>((1U << second) - 1U);
  const __m512bh rounded_pairs = _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, elements + first),
                                                     _mm512_maskz_loadu_ps(low, elements));
  _mm512_store_ps(line, (__m512)rounded_pairs);
}

HWY_INLINE void prefetch_unit(Type, const std::byte* row, std::size_t stride) {
  prefetch_near(row);
  prefetch_near(row + kPanel * 2 - 1);
  prefetch_near(row + stride);
  prefetch_near(row + stride + kPanel * 2 - 1);
}

/// Pairs of one column each, of two rows.
HWY_INLINE __m512i paired(const std::byte* upper, const std::byte* lower) {
  const __m512i first =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(upper)));
  const __m512i second =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(lower)));
  return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
}

HWY_INLINE void stage_unit(Type, const std::byte* row, std::size_t stride, float* out) {
  TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kPanelVectors; ++v) {
    const std::byte* upper = row + v * kLanes * 2;
    _mm512_store_si512(out + v * kLanes, paired(upper, upper + stride));
  }
}

void stage_row(Type, const std::byte* row, std::size_t elements, float* out) {
  std::fill_n(out, (elements + 1) / 2, 0.0F);
  std::memcpy(out, row, elements * 2);
}

void stage_columns(Type type, const std::byte* w, std::size_t stride, std::size_t rows,
                   std::size_t columns, float* out) {
  if (rows == 2 && columns == kPanel) return stage_unit(type, w, stride, out);
  alignas(64) std::byte two_rows[2][kPanel * 2] = {};
  for (std::size_t r = 0; r < rows; ++r) std::memcpy(two_rows[r], w + r * stride, columns * 2);
  stage_unit(type, two_rows[0], kPanel * 2, out);
}

void narrow(const float* z, std::size_t rows, std::size_t stride, float* units) {
  for (std::size_t row = 0; row < rows; row += 2, units += stride) {
    for (std::size_t b = 0; b < stride; ++b) {
      const float of_sample[] = {z[row * stride + b],
                                 row + 1 < rows ? z[(row + 1) * stride + b] : 0};
      units[b] = unit_of(of_sample, 2);
    }
  }
}

#include "native/tile_block-inl.h"
#include "native/tile_sweep-inl.h"
// uses both:
#include "native/tile_few-inl.h"

}  // namespace pair

const Kernels& pairs() { return pair::table(); }
const Kernels& few_pairs() { return pair::few_table(); }

}  // namespace
}  // namespace tiedexport::internal::native::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
