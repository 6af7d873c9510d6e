// Which instruction sets this build has kernels for and this CPU runs.
#include "native/amx.hpp"
#include "native/cpuid.hpp"
#include "native/dispatch.hpp"

namespace tiedexport::internal::native {
namespace {

/// Where HWY_TARGETS lacks a target, no kernel was compiled for it.
bool compiled(Simd simd) {
  switch (simd) {
    case Simd::scalar:
      return (HWY_TARGETS & (HWY_SCALAR | HWY_EMU128)) != 0;
    case Simd::sse4:
      return (HWY_TARGETS & HWY_SSE4) != 0;
    case Simd::avx2:
      return (HWY_TARGETS & HWY_AVX2) != 0;
    case Simd::avx512:
    case Simd::avx512_bf16:
    case Simd::amx_bf16:
      return (HWY_TARGETS & HWY_AVX3) != 0;
    case Simd::neon:
      return (HWY_TARGETS & (HWY_NEON | HWY_NEON_WITHOUT_AES)) != 0;
  }
  return false;
}

#if HWY_ARCH_X86

using cpuid::all, cpuid::bit, cpuid::Leaf;

/// The strongest that the CPU and the operating system run.
Simd strongest_of_cpu() {
  const Leaf one(1, 0), seven(7, 0);
  const unsigned states = cpuid::saved_states();
  // SSSE3, SSE4.1, SSE4.2, PCLMULQDQ, AES: all that Highway's SSE4 may use.
  if (!all(one.ecx, bit(9) | bit(19) | bit(20) | bit(1) | bit(25))) return Simd::scalar;
  // FMA, AVX, F16C; BMI1, AVX2, BMI2; XMM and YMM saved.
  if (!all(one.ecx, bit(12) | bit(28) | bit(29)) || !all(seven.ebx, bit(3) | bit(5) | bit(8)) ||
      !all(states, bit(1) | bit(2)))
    return Simd::sse4;
  // AVX-512 F, DQ, CD, BW, VL; opmasks and ZMM saved.
  if (!all(seven.ebx, bit(16) | bit(17) | bit(28) | bit(30) | bit(31)) ||
      !all(states, bit(5) | bit(6) | bit(7)))
    return Simd::avx2;
  const bool has_subleaf = seven.eax >= 1;  // EAX of leaf 7 counts its subleaves
  return has_subleaf && all(Leaf(7, 1).eax, bit(5)) ? Simd::avx512_bf16 : Simd::avx512;
}

/// Each set of x86 holds all weaker ones, in the order of `Simd`.
bool cpu_runs(Simd simd) {
  if (simd == Simd::amx_bf16) return why_no_amx() == nullptr;
  return simd != Simd::neon && simd <= strongest_of_cpu();
}

#else

/// Every CPU of this build runs what was compiled.
bool cpu_runs(Simd simd) { return simd != Simd::amx_bf16; }

#endif

}  // namespace

bool simd_runs_here(Simd simd) { return compiled(simd) && cpu_runs(simd); }

Simd best_simd(Type weights) {
  Simd best = Simd::scalar;
  for (const Simd simd : kEverySimd) {
    // Only bfloat16 have a use for AMX, and asking for it changes the process.
    if (simd == Simd::amx_bf16 && weights != Type::bf16) continue;
    if (simd_runs_here(simd)) best = simd;
  }
  return best;
}

const char* name_of(Simd simd) {
  switch (simd) {
    case Simd::scalar:
      return "scalar";
    case Simd::sse4:
      return "sse4";
    case Simd::avx2:
      return "avx2";
    case Simd::avx512:
      return "avx512";
    case Simd::avx512_bf16:
      return "avx512_bf16";
    case Simd::amx_bf16:
      return "amx_bf16";
    case Simd::neon:
      return "neon";
  }
  return "unknown";
}

}  // namespace tiedexport::internal::native
