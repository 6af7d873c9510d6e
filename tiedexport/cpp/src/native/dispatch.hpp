// How kernels are compiled for several instruction sets, and how one of them is called.
//
// Highway re-includes a kernel file once for each target; what its own dispatcher needs to choose
// one (HWY_EXPORT, SupportedTargets) lies in libhwy, which holds abort() and printf, so this file
// chooses instead, by a `Simd` that the session was given. A kernel file, say sum.cc:
//
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "native/sum.cc"
//   #include "native/dispatch.hpp"     // before any header of Highway
//   #include "hwy/foreach_target.h"
//   #include "hwy/highway.h"
//
//   HWY_BEFORE_NAMESPACE();
//   namespace tiedexport::internal::native::HWY_NAMESPACE {
//   namespace {                        // one name in two files must not become one function
//   void sum(const float* values, ...) { ... }   // no lambdas: clang gives them no target
//   }
//   }
//   HWY_AFTER_NAMESPACE();
//
//   #if HWY_ONCE
//   namespace tiedexport::internal::native {
//   void sum(..., Simd simd) { TIEDEXPORT_AT(simd, sum)(values, ...); }
//   }
//   #endif
//
// All but the kernel (the threads, the memory) belongs into the HWY_ONCE part. A header that is
// meant for every target ends in -inl.h and is guarded as Highway's own are:
//
//   #if defined(SUM_INL_H_) == defined(HWY_TARGET_TOGGLE)
//   #ifdef SUM_INL_H_
//   #undef SUM_INL_H_
//   #else
//   #define SUM_INL_H_
//   #endif
//   ...  // includes hwy/highway.h, then HWY_BEFORE_NAMESPACE() and so on; functions HWY_INLINE
//   #endif
//
// bfloat16 products (_mm512_dpbf16_ps) are in no target of Highway 1.0: AVX3 is AVX-512 F, VL, DQ,
// BW. Functions that use them go between TIEDEXPORT_BEFORE_BF16() and HWY_AFTER_NAMESPACE() in an
// `#if HWY_TARGET == HWY_AVX3` of their own, beside (not inside) HWY_BEFORE_NAMESPACE(), since
// clang adds up no two attributes; they may call, and inline, all that was compiled for AVX3.
// TIEDEXPORT_AT_BF16(simd, sum, sum_bf16) calls N_AVX3::sum_bf16 where `simd` is avx512_bf16 or
// amx_bf16.
#pragma once

// What a failed assertion of Highway calls lies in libhwy, so debug builds go without them.
#define HWY_IS_DEBUG_BUILD 0

// One target a `Simd`: others would cost compile time and bytes, and run nowhere that these do not.
#define HWY_DISABLED_TARGETS                                                                   \
  (HWY_SSE2 | HWY_SSSE3 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR | HWY_AVX10_2 | HWY_SVE | \
   HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_NEON_BF16 | HWY_RVV | HWY_PPC8 | HWY_PPC9 |     \
   HWY_PPC10 | HWY_Z14 | HWY_Z15 | HWY_WASM | HWY_WASM_EMU256 | HWY_LSX | HWY_LASX |           \
   (HWY_NEON * (HWY_NEON_WITHOUT_AES != 0)))
#include "hwy/detect_targets.h"
#include "native/products.hpp"

// Targets that this version of Highway does not know (or has dropped).
#ifndef HWY_SSE2
#define HWY_SSE2 0
#endif
#ifndef HWY_AVX3_ZEN4
#define HWY_AVX3_ZEN4 0
#endif
#ifndef HWY_AVX3_SPR
#define HWY_AVX3_SPR 0
#endif
#ifndef HWY_AVX10_2
#define HWY_AVX10_2 0
#endif
#ifndef HWY_NEON_BF16
#define HWY_NEON_BF16 0
#endif
#ifndef HWY_NEON_WITHOUT_AES
#define HWY_NEON_WITHOUT_AES 0
#endif
#ifndef HWY_PPC9
#define HWY_PPC9 0
#endif
#ifndef HWY_PPC10
#define HWY_PPC10 0
#endif
#ifndef HWY_Z14
#define HWY_Z14 0
#endif
#ifndef HWY_Z15
#define HWY_Z15 0
#endif
#ifndef HWY_LSX
#define HWY_LSX 0
#endif
#ifndef HWY_LASX
#define HWY_LASX 0
#endif

// The namespace in which each `Simd` is compiled; where it is not, that of the target which every
// CPU of this build has: HWY_NAMESPACE as it stands under HWY_ONCE.
#if HWY_TARGETS & HWY_SSE4
#define TIEDEXPORT_SSE4 N_SSE4
#else
#define TIEDEXPORT_SSE4 HWY_NAMESPACE
#endif
#if HWY_TARGETS & HWY_AVX2
#define TIEDEXPORT_AVX2 N_AVX2
#else
#define TIEDEXPORT_AVX2 HWY_NAMESPACE
#endif
#if HWY_TARGETS & HWY_AVX3
#define TIEDEXPORT_AVX3 N_AVX3
#else
#define TIEDEXPORT_AVX3 HWY_NAMESPACE
#endif

#if HWY_TARGETS & HWY_AVX3
#define TIEDEXPORT_BF16_OR(function, bf16_function) TIEDEXPORT_AVX3::bf16_function
#else
#define TIEDEXPORT_BF16_OR(function, bf16_function) TIEDEXPORT_AVX3::function
#endif

/// The function for `simd`, which must be one of those that `simd_runs_here` allows.
#define TIEDEXPORT_AT(simd, function) TIEDEXPORT_AT_BF16(simd, function, function)
#define TIEDEXPORT_AT_BF16(simd, function, bf16_function)                                     \
  ::tiedexport::internal::native::choose(                                                     \
      simd, &HWY_NAMESPACE::function, &TIEDEXPORT_SSE4::function, &TIEDEXPORT_AVX2::function, \
      &TIEDEXPORT_AVX3::function, &TIEDEXPORT_BF16_OR(function, bf16_function))

/// Begins functions for AVX-512 with bfloat16; HWY_AFTER_NAMESPACE() ends them.
#define TIEDEXPORT_BEFORE_BF16()                    \
  HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16") \
  static_assert(true, "For requiring trailing semicolon")

namespace tiedexport::internal::native {

/// Scalar and NEON are never compiled together: each is what every CPU of its build has.
template <class Function>
Function* choose(Simd simd, Function* baseline, Function* sse4, Function* avx2, Function* avx512,
                 Function* avx512_bf16) {
  switch (simd) {
    case Simd::sse4:
      return sse4;
    case Simd::avx2:
      return avx2;
    case Simd::avx512:
      return avx512;
    case Simd::avx512_bf16:
    case Simd::amx_bf16:
      return avx512_bf16;
    case Simd::scalar:
    case Simd::neon:
      break;
  }
  return baseline;
}

}  // namespace tiedexport::internal::native
