// What an x86 CPU says of itself; see the Intel manual, volume 2, CPUID. Asked directly: the
// compilers' own detection knows f16c, avx512bf16 or amx-bf16 in some versions only.
#pragma once

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

namespace tiedexport::internal::native::cpuid {

/// The registers that one leaf gives; zeros where the CPU has no such leaf.
struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;

  Leaf(unsigned leaf, unsigned subleaf) {
    if (static_cast<unsigned>(__get_cpuid_max(0, nullptr)) >= leaf)
      __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
  }
};

inline bool all(unsigned value, unsigned bits) { return (value & bits) == bits; }
constexpr unsigned bit(int index) { return 1U << index; }

/// Which register states the operating system saves (XCR0): a CPU's AVX is no use without.
inline unsigned saved_states() {
  if (!all(Leaf(1, 0).ecx, bit(27))) return 0;  // OSXSAVE
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

}  // namespace tiedexport::internal::native::cpuid
#endif
