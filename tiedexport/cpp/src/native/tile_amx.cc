// Products of bfloat16 by AMX, Intel's tiles of registers; see the Intel manual, volume 1, chapter
// "Programming with Intel AMX", and volume 2, TDPBF16PS. That instruction takes denormal numbers
// for zero, as that of AVX-512 does.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "native/tile.hpp"

#undef TIEDEXPORT_HAS_AMX
#if defined(__x86_64__) && defined(__linux__) && \
    (defined(__clang__) ? __clang_major__ >= 12 : defined(__GNUC__) && __GNUC__ >= 11)
#define TIEDEXPORT_HAS_AMX 1
#else
#define TIEDEXPORT_HAS_AMX 0
#endif

#if TIEDEXPORT_HAS_AMX
#include "hwy/base.h"  // HWY_PUSH_ATTRIBUTES

HWY_PUSH_ATTRIBUTES("avx2,fma,bmi,bmi2,f16c,avx512f,avx512vl,avx512dq,avx512bw,amx-tile,amx-bf16")
namespace tiedexport::internal::native::tile {
namespace {

/// What LDTILECFG reads.
struct alignas(64) Configuration {
  std::uint8_t palette, start_row, reserved[14];
  std::uint16_t row_bytes[16];
  std::uint8_t rows[16];
};
static_assert(sizeof(Configuration) == 64, "the size that the instruction reads");

constexpr Configuration kWholeTiles = {
    1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

/// The tiles of this thread. Not by the compilers' intrinsics: those of GCC 12 take no template
/// argument for a tile, and do not say which memory they read.
class AmxTiles {
 public:
  static constexpr Simd kSimd = Simd::avx512_bf16;

  AmxTiles() { __asm__ volatile("ldtilecfg %0" : : "m"(kWholeTiles)); }
  ~AmxTiles() { __asm__ volatile("tilerelease"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  template <int kTile>
  void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  void load(const void* address, std::size_t stride) {
    __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0"
                     :
                     : "i"(kTile), "r"(address), "r"(stride)
                     : "memory");
  }
  template <int kTile>
  void store(void* address, std::size_t stride) {
    __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)"
                     :
                     : "i"(kTile), "r"(address), "r"(stride)
                     : "memory");
  }
  /// Operands in the order of AT&T, the last one first.
  template <int kSums, int kA, int kB>
  void multiply_add() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }
};

#include "native/tile_amx-inl.h"

const Kernels& amx() { return tile_kernels<AmxTiles>(); }

}  // namespace
}  // namespace tiedexport::internal::native::tile
HWY_POP_ATTRIBUTES
#endif

namespace tiedexport::internal::native::tile {

const Kernels* amx_kernels() {
#if TIEDEXPORT_HAS_AMX
  return &amx();
#else
  return nullptr;
#endif
}

}  // namespace tiedexport::internal::native::tile
