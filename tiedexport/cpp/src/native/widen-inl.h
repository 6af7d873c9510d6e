// Stored values, fp32, fp16 or bf16, loaded as vectors of fp32; included once for each target.
#if defined(TIEDEXPORT_NATIVE_WIDEN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TIEDEXPORT_NATIVE_WIDEN_INL_H_
#undef TIEDEXPORT_NATIVE_WIDEN_INL_H_
#else
#define TIEDEXPORT_NATIVE_WIDEN_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

// Targets with an instruction that widens and narrows fp16. Highway's way around one, on SSE4 and
// without SIMD, takes infinities and NaN for finite numbers.
#undef TIEDEXPORT_CONVERTS_FP16
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || \
    (HWY_ARCH_ARM_A64 && (HWY_TARGET & (HWY_NEON | HWY_NEON_WITHOUT_AES)))
#define TIEDEXPORT_CONVERTS_FP16 1
#else
#define TIEDEXPORT_CONVERTS_FP16 0
#endif

HWY_BEFORE_NAMESPACE();
namespace tiedexport::internal::native::HWY_NAMESPACE {
namespace {
namespace stored {

namespace hn = hwy::HWY_NAMESPACE;

using Float = hn::ScalableTag<float>;
using Vector = hn::Vec<Float>;
constexpr std::size_t kLanes = HWY_LANES(float);

// D, a tag of fp32, says how many values are widened together.
template <class D>
using Bits = hn::RebindToUnsigned<D>;
template <class D>
using Bits16 = hn::Rebind<std::uint16_t, D>;

/// bfloat16 is the upper half of an fp32, whatever it holds.
template <class D>
HWY_INLINE hn::Vec<D> widen_bf16(D d, hn::Vec<Bits16<D>> values) {
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(Bits<D>(), values)));
}

#if TIEDEXPORT_CONVERTS_FP16
template <class D>
HWY_INLINE hn::Vec<D> widen_fp16(D d, hn::Vec<Bits16<D>> values) {
  const hn::Rebind<hwy::float16_t, D> half;
  return hn::PromoteTo(d, hn::BitCast(half, values));
}
#else
/// Exponents move from bias 15 to 127, the largest (infinities, NaN) to the largest. Subnormal
/// numbers become normal: 2^-14 (1 + m / 2^10) - 2^-14 is exact, where the host flushes
/// subnormal fp32 to zero too.
template <class D>
HWY_INLINE hn::Vec<D> widen_fp16(D f, hn::Vec<Bits16<D>> values) {
  const Bits<D> d;
  const auto all = hn::PromoteTo(d, values);
  const auto magnitude = hn::And(all, hn::Set(d, 0x7FFFU));
  const auto sign = hn::ShiftLeft<16>(hn::Sub(all, magnitude));
  const auto moved = hn::ShiftLeft<13>(magnitude);
  const auto normal = hn::Add(moved, hn::Set(d, 112U << 23));
  const auto special = hn::Add(moved, hn::Set(d, 224U << 23));
  const auto one = hn::Set(d, 113U << 23);
  const auto above_one = hn::BitCast(f, hn::Add(moved, one));
  const auto subnormal = hn::BitCast(d, hn::Sub(above_one, hn::BitCast(f, one)));
  const hn::RebindToSigned<Bits<D>> s;
  const auto signed_magnitude = hn::BitCast(s, magnitude);
  const auto is_special = hn::RebindMask(d, hn::Gt(signed_magnitude, hn::Set(s, 0x7BFF)));
  const auto is_subnormal = hn::RebindMask(d, hn::Lt(signed_magnitude, hn::Set(s, 0x0400)));
  const auto wide = hn::IfThenElse(is_special, special, normal);
  return hn::BitCast(f, hn::Or(sign, hn::IfThenElse(is_subnormal, subnormal, wide)));
}
#endif

HWY_INLINE const std::uint16_t* bits_of(const hwy::float16_t* p) {
  return reinterpret_cast<const std::uint16_t*>(p);
}
HWY_INLINE const std::uint16_t* bits_of(const hwy::bfloat16_t* p) {
  return reinterpret_cast<const std::uint16_t*>(p);
}

/// A vector of values at `p`, which need not be aligned.
template <class D>
HWY_INLINE hn::Vec<D> widened(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> widened(D d, const hwy::float16_t* p) {
  return widen_fp16(d, hn::LoadU(Bits16<D>(), bits_of(p)));
}
template <class D>
HWY_INLINE hn::Vec<D> widened(D d, const hwy::bfloat16_t* p) {
  return widen_bf16(d, hn::LoadU(Bits16<D>(), bits_of(p)));
}

/// The first `count` (less than a vector) values at `p` and zeros; nothing behind them is read:
/// there a mapped file may end.
#if HWY_MEM_OPS_MIGHT_FAULT
template <class D, class T>
HWY_INLINE hn::Vec<D> widened_head(D d, const T* p, std::size_t count) {
  HWY_ALIGN T values[kLanes] = {};
  std::memcpy(values, p, count * sizeof(T));
  return widened(d, values);
}
#else
template <class D>
HWY_INLINE hn::Vec<D> widened_head(D d, const float* p, std::size_t count) {
  return hn::MaskedLoad(hn::FirstN(d, count), d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> head_bits(D d, const std::uint16_t* p, std::size_t count) {
  return hn::MaskedLoad(hn::FirstN(d, count), d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> widened_head(D d, const hwy::float16_t* p, std::size_t count) {
  return widen_fp16(d, head_bits(Bits16<D>(), bits_of(p), count));
}
template <class D>
HWY_INLINE hn::Vec<D> widened_head(D d, const hwy::bfloat16_t* p, std::size_t count) {
  return widen_bf16(d, head_bits(Bits16<D>(), bits_of(p), count));
}
#endif

}  // namespace stored
}  // namespace
}  // namespace tiedexport::internal::native::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
