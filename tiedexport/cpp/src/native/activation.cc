// An activation over an array, for every instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "native/activation.cc"
#include "native/dispatch.hpp"
//
#include "hwy/foreach_target.h"
//
#include "hwy/highway.h"
#include "native/activation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tiedexport::internal::native::HWY_NAMESPACE {
namespace {

void activate_array(Activation activation, float* values, std::size_t count) {
  activate_values(activation, values, count);
}

}  // namespace
}  // namespace tiedexport::internal::native::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiedexport::internal::native {

void activate(Activation activation, float* values, std::size_t count, Simd simd) {
  TIEDEXPORT_AT(simd, activate_array)(activation, values, count);
}

}  // namespace tiedexport::internal::native
#endif
