// Arrays of stored values to fp32 and back.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "native/widen.cc"
#include "native/dispatch.hpp"
// The order counts: dispatch.hpp chooses the targets.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "native/widen-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tiedexport::internal::native::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <class T>
void widen_all(const void* values, std::size_t count, float* out) {
  const auto* p = static_cast<const T*>(values);
  const stored::Float d;
  std::size_t i = 0;
  for (; i + stored::kLanes <= count; i += stored::kLanes)
    hn::StoreU(stored::widened(d, p + i), d, out + i);
  if (i == count) return;
  HWY_ALIGN float last[stored::kLanes];
  hn::Store(stored::widened_head(d, p + i, count - i), d, last);
  std::memcpy(out + i, last, (count - i) * sizeof(float));
}

HWY_INLINE std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// The upper half, rounded to nearest even; NaN keeps its sign and stays NaN.
HWY_INLINE std::uint16_t bf16_of(float value) {
  const std::uint32_t bits = bits_of_float(value);
  const std::uint32_t rounded = bits + 0x7FFFU + ((bits >> 16) & 1U);
  const std::uint32_t quiet = bits | 0x400000U;
  const bool is_nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  return static_cast<std::uint16_t>((is_nan ? quiet : rounded) >> 16);
}

void narrow_bf16(const float* values, std::size_t count, void* out) {
  auto* p = static_cast<std::uint16_t*>(out);
  for (std::size_t i = 0; i < count; ++i) p[i] = bf16_of(values[i]);
}

#if TIEDEXPORT_CONVERTS_FP16
void narrow_fp16(const float* values, std::size_t count, void* out) {
  const stored::Float d;
  const hn::Rebind<hwy::float16_t, stored::Float> half;
  auto* p = static_cast<hwy::float16_t*>(out);
  std::size_t i = 0;
  for (; i + stored::kLanes <= count; i += stored::kLanes)
    hn::StoreU(hn::DemoteTo(half, hn::LoadU(d, values + i)), half, p + i);
  if (i == count) return;
  HWY_ALIGN hwy::float16_t last[stored::kLanes];
  hn::Store(hn::DemoteTo(half, stored::widened_head(d, values + i, count - i)), half, last);
  std::memcpy(p + i, last, (count - i) * sizeof *p);
}
#else
/// Rounded to nearest even: adding 1/2 leaves a subnormal's bits at the end of the significand,
/// and in others a carry rounds up, into infinity where it must.
HWY_INLINE std::uint16_t fp16_of(float value) {
  constexpr std::uint32_t one_half = 126U << 23, smallest_normal = 113U << 23;
  const std::uint32_t bits = bits_of_float(value);
  const std::uint32_t sign = bits >> 16 & 0x8000U, magnitude = bits & 0x7FFFFFFFU;
  std::uint32_t result;
  if (magnitude >= 143U << 23) {  // 2^16 and more
    result = magnitude > 0x7F800000U ? 0x7E00U : 0x7C00U;
  } else if (magnitude < smallest_normal) {
    result = bits_of_float((value < 0.0F ? -value : value) + 0.5F) - one_half;
  } else {
    result = (magnitude - (112U << 23) + 0xFFFU + (magnitude >> 13 & 1U)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | result);
}

void narrow_fp16(const float* values, std::size_t count, void* out) {
  auto* p = static_cast<std::uint16_t*>(out);
  for (std::size_t i = 0; i < count; ++i) p[i] = fp16_of(values[i]);
}
#endif

void widen_array(Type from, const void* values, std::size_t count, float* out) {
  switch (from) {
    case Type::fp32:
      std::memcpy(out, values, count * sizeof(float));
      break;
    case Type::fp16:
      widen_all<hwy::float16_t>(values, count, out);
      break;
    case Type::bf16:
      widen_all<hwy::bfloat16_t>(values, count, out);
      break;
  }
}

void narrow_array(Type to, const float* values, std::size_t count, void* out) {
  switch (to) {
    case Type::fp32:
      std::memcpy(out, values, count * sizeof(float));
      break;
    case Type::fp16:
      narrow_fp16(values, count, out);
      break;
    case Type::bf16:
      narrow_bf16(values, count, out);
      break;
  }
}

}  // namespace
}  // namespace tiedexport::internal::native::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiedexport::internal::native {

void widen(Type from, const void* values, std::size_t count, float* out, Simd simd) {
  TIEDEXPORT_AT(simd, widen_array)(from, values, count, out);
}

void narrow(Type to, const float* values, std::size_t count, void* out, Simd simd) {
  TIEDEXPORT_AT(simd, narrow_array)(to, values, count, out);
}

}  // namespace tiedexport::internal::native
#endif
