#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "native/tile_kernels.cc"
#include "native/dispatch.hpp"  // before any header of Highway
//
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
//
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "native/tile.hpp"
#include "native/widen-inl.h"

// Sums live in registers only if the loops over them are gone.
#undef TIEDEXPORT_UNROLL
#define TIEDEXPORT_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define TIEDEXPORT_UNROLL(n) TIEDEXPORT_PRAGMA(clang loop unroll(full))
#else
#define TIEDEXPORT_UNROLL(n) TIEDEXPORT_PRAGMA(GCC unroll n)
#endif

#undef TIEDEXPORT_TILE_REGISTERS
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
#define TIEDEXPORT_TILE_REGISTERS 32
#else
#define TIEDEXPORT_TILE_REGISTERS 16
#endif

HWY_BEFORE_NAMESPACE();
namespace tiedexport::internal::native::tile::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using Float = hn::ScalableTag<float>;
using Vector = hn::Vec<Float>;

// Blocks of sums: two thirds of the registers, the rest for what is multiplied.
constexpr std::size_t kLanes = HWY_LANES(float), kUnitBytes = 4;
constexpr std::size_t kRows = 6;
#if TIEDEXPORT_TILE_REGISTERS == 32
constexpr std::size_t kGroupVectors = 4, kSamples = 8, kFewestSamples = 4, kPanelVectors = 3;
#else
constexpr std::size_t kGroupVectors = 2, kSamples = 6, kFewestSamples = 3, kPanelVectors = 2;
#endif
constexpr std::size_t kPanel = kPanelVectors * kLanes;
constexpr std::size_t kStripPanels = 4, kStrip = kStripPanels * kPanel;
constexpr std::size_t kLineUnits = 16;    // of four bytes in a line of cache
constexpr std::size_t kBlockUnits = 512;  // of up to four vectors of samples: 128 KiB, half of L2
constexpr std::size_t kStagedUnits = kBlockUnits + kLineUnits;
constexpr std::size_t kStepUnits = 8, kStageAhead = 8;
/// Units of rows that stay in cache; sums of the output are read and written once a tile.
constexpr std::size_t kTileUnits = 384;

HWY_INLINE void prefetch_far(const void* address) { __builtin_prefetch(address, 0, 2); }
HWY_INLINE void prefetch_near(const void* address) { __builtin_prefetch(address, 0, 3); }
HWY_INLINE void prefetch_to_write(const void* address) { __builtin_prefetch(address, 1, 3); }

}  // namespace
}  // namespace tiedexport::internal::native::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#include "native/tile_single-inl.h"
#if HWY_TARGET == HWY_AVX3
#include "native/tile_pairs-inl.h"
#endif

#if HWY_ONCE
namespace tiedexport::internal::native::tile {

const Kernels& kernels(Simd simd, Type weights, std::size_t batch) {
  if (weights == Type::bf16 && batch <= kFewSamples) {
    return TIEDEXPORT_AT_BF16(simd, singles, few_pairs)();
  }
  if (weights == Type::bf16 && simd == Simd::amx_bf16) return *amx_kernels();
  if (weights == Type::bf16) {
    return TIEDEXPORT_AT_BF16(simd, singles, pairs)();
  }
  return TIEDEXPORT_AT(simd, singles)();
}

}  // namespace tiedexport::internal::native::tile
#endif
