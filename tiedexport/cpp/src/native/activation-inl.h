// Activations on vectors. Errors are relative to the result, in units of 2^-24, as the test finds
// them over all magnitudes: sigmoid 4, tanh 4, gelu 6; where results are subnormal, they may be off
// by a few of the smallest numbers. Infinities and NaN give what torch gives in float64.

#if defined(TIEDEXPORT_NATIVE_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TIEDEXPORT_NATIVE_ACTIVATION_INL_H_
#undef TIEDEXPORT_NATIVE_ACTIVATION_INL_H_
#else
#define TIEDEXPORT_NATIVE_ACTIVATION_INL_H_
#endif

#include <cstddef>
#include <cstring>
#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "native/products.hpp"

HWY_BEFORE_NAMESPACE();
namespace tiedexport::internal::native::HWY_NAMESPACE {
namespace {
namespace activations {

namespace hn = hwy::HWY_NAMESPACE;

/// max(x, 0), and NaN where x is.
template <class D, class V>
HWY_INLINE V relu(D d, V x) {
  const V zero = hn::Zero(d);
  return hn::IfThenElse(hn::Lt(x, zero), zero, x);
}

/// Puts NaN back where `x` is NaN: exponentials lose it.
template <class V>
HWY_INLINE V keep_nan(V x, V y) {
  return hn::IfThenElse(hn::Eq(x, x), y, x);
}

/// 1 / (1 + e^-x), by e^-|x|: without overflow, and exact to the last subnormal for x < 0.
template <class D, class V>
HWY_INLINE V sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0F);
  const V small = hn::Exp(d, hn::Neg(hn::Abs(x)));
  const V numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), small, one);
  return keep_nan(x, hn::Div(numerator, hn::Add(one, small)));
}

/// 1 - 2 / (e^2|x| + 1) with the sign of x; up to 0.625, where that cancels, a minimax polynomial
/// for (tanh(x) / x - 1) / x² in x², relative error 6e-9.
template <class D, class V>
HWY_INLINE V tanh(D d, V x) {
  const V magnitude = hn::Abs(x);
  const V square = hn::Mul(x, x);
  V series = hn::Set(d, 2.26959e-3F);
  for (const float c : {-8.3232755e-3F, 2.1762535e-2F, -5.3958464e-2F, 1.33333e-1F, -3.3333334e-1F})
    series = hn::MulAdd(series, square, hn::Set(d, c));
  const V near_zero = hn::MulAdd(hn::Mul(magnitude, square), series, magnitude);
  const V one = hn::Set(d, 1.0F);
  const V bounded = hn::Min(magnitude, hn::Set(d, 10.0F));  // beyond 9.02 all of them are 1
  const V power = hn::Exp(d, hn::Add(bounded, bounded));
  const V far = hn::Sub(one, hn::Div(hn::Set(d, 2.0F), hn::Add(power, one)));
  const V value = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0.625F)), near_zero, far);
  return keep_nan(x, hn::CopySign(value, x));
}

/// e^(-t²/2) without the error of rounding t², which the exponential would multiply by t²/2: t is
/// split so that the square of its upper half is exact, on CPUs without fused products too.
template <class D, class V>
HWY_INLINE V normal_density(D d, V t) {
  const hn::RebindToUnsigned<D> bits;
  const V upper = hn::BitCast(d, hn::And(hn::BitCast(bits, t), hn::Set(bits, 0xFFFFF000U)));
  const V lower = hn::Sub(t, upper);
  const V square = hn::Mul(t, t);
  const V rounded_off =
      hn::MulAdd(lower, hn::Add(t, upper), hn::Sub(hn::Mul(upper, upper), square));
  const V half = hn::Set(d, -0.5F);
  const V density = hn::Exp(d, hn::Mul(square, half));
  return hn::MulAdd(density, hn::Mul(rounded_off, half), density);
}

/// x Φ(x) = max(x, 0) - t Φ(-t) with t = |x|, where nothing cancels. Φ(-t) = e^(-t²/2) P(u) /
/// (1 + √2 t) with u = (t - 3) / (t + 3) and P minimax, relative error 2e-8.
template <class D, class V>
HWY_INLINE V gelu(D d, V x) {
  // From 15 on, t Φ(-t) is 0 in fp32.
  const V t = hn::Min(hn::Abs(x), hn::Set(d, 15.0F));
  const V three = hn::Set(d, 3.0F);
  const V u = hn::Div(hn::Sub(t, three), hn::Add(t, three));
  V p = hn::Set(d, 0x1.0599dap-14F);
  for (const float c :
       {-0x1.5583d2p-17F, -0x1.73fc8ep-11F, -0x1.5f6d86p-12F, 0x1.2fe4dap-8F, 0x1.c12fc8p-12F,
        -0x1.1c19e0p-5F, 0x1.540772p-4F, -0x1.304096p-4F, -0x1.a1e9a6p-5F, 0x1.462bf0p-1F})
    p = hn::MulAdd(p, u, hn::Set(d, c));
  const V one = hn::Set(d, 1.0F);
  const V weight = hn::Div(t, hn::MulAdd(t, hn::Set(d, 1.41421356F), one));
  const V tail = hn::Mul(normal_density(d, t), hn::Mul(weight, p));
  const V value = hn::Sub(relu(d, x), tail);
  // -∞ times 0
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  const V nan = hn::Set(d, std::numeric_limits<float>::quiet_NaN());
  return keep_nan(x, hn::IfThenElse(hn::Eq(x, lowest), nan, value));
}

template <Activation kActivation, class D, class V>
HWY_INLINE V activated(D d, V x) {
  if constexpr (kActivation == Activation::relu) return relu(d, x);
  if constexpr (kActivation == Activation::sigmoid) return sigmoid(d, x);
  if constexpr (kActivation == Activation::tanh) return tanh(d, x);
  if constexpr (kActivation == Activation::gelu) return gelu(d, x);
  return x;
}

template <Activation kActivation>
HWY_INLINE void activate_all(float* values, std::size_t count) {
  const hn::ScalableTag<float> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(activated<kActivation>(d, hn::LoadU(d, values + i)), d, values + i);
  }
  if (i == count) return;
  HWY_ALIGN float rest[HWY_MAX_BYTES / sizeof(float)] = {};
  std::memcpy(rest, values + i, (count - i) * sizeof(float));
  hn::Store(activated<kActivation>(d, hn::Load(d, rest)), d, rest);
  std::memcpy(values + i, rest, (count - i) * sizeof(float));
}

}  // namespace activations

/// values[i] = f(values[i]).
HWY_INLINE void activate_values(Activation activation, float* values, std::size_t count) {
  using namespace activations;
  switch (activation) {
    case Activation::none:
      return;
    case Activation::relu:
      return activate_all<Activation::relu>(values, count);
    case Activation::gelu:
      return activate_all<Activation::gelu>(values, count);
    case Activation::tanh:
      return activate_all<Activation::tanh>(values, count);
    case Activation::sigmoid:
      return activate_all<Activation::sigmoid>(values, count);
  }
}

}  // namespace
}  // namespace tiedexport::internal::native::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
