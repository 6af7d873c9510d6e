// Which instruction sets this build has kernels for and this CPU runs. Asked of the CPU itself:
// the compilers' own detection knows f16c or avx512bf16 in some versions only.
#include "native/dispatch.hpp"

#if HWY_ARCH_X86
#include <cpuid.h>
#endif

namespace tiedexport::internal::native {
namespace {

constexpr Simd strongest_first[] = {Simd::avx512_bf16, Simd::avx512, Simd::avx2,
                                    Simd::sse4,        Simd::neon,   Simd::scalar};

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
      return (HWY_TARGETS & HWY_AVX3) != 0;
    case Simd::neon:
      return (HWY_TARGETS & (HWY_NEON | HWY_NEON_WITHOUT_AES)) != 0;
  }
  return false;
}

#if HWY_ARCH_X86

/// Bits of CPUID, leaf and register by name; see the Intel manual, volume 2, CPUID.
struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;

  Leaf(unsigned leaf, unsigned subleaf) {
    if (static_cast<unsigned>(__get_cpuid_max(0, nullptr)) >= leaf)
      __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
  }
};

bool all(unsigned value, unsigned bits) { return (value & bits) == bits; }
constexpr unsigned bit(int index) { return 1U << index; }

/// Which register states the operating system saves: a CPU's AVX is no use without.
unsigned saved_states(const Leaf& one) {
  if (!all(one.ecx, bit(27))) return 0;  // OSXSAVE
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

/// The strongest that the CPU and the operating system run.
Simd strongest_of_cpu() {
  const Leaf one(1, 0), seven(7, 0);
  const unsigned states = saved_states(one);
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
bool cpu_runs(Simd simd) { return simd != Simd::neon && simd <= strongest_of_cpu(); }

#else

/// Every CPU of this build runs what was compiled.
bool cpu_runs(Simd) { return true; }

#endif

}  // namespace

bool simd_runs_here(Simd simd) { return compiled(simd) && cpu_runs(simd); }

Simd best_simd() {
  for (const Simd simd : strongest_first) {
    if (simd_runs_here(simd)) return simd;
  }
  return Simd::scalar;
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
    case Simd::neon:
      return "neon";
  }
  return "unknown";
}

}  // namespace tiedexport::internal::native
