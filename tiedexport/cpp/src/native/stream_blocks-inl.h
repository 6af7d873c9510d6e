// Products of M rows with N samples, held in registers; included once for each target.
#if defined(TIEDEXPORT_NATIVE_STREAM_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TIEDEXPORT_NATIVE_STREAM_BLOCKS_INL_H_
#undef TIEDEXPORT_NATIVE_STREAM_BLOCKS_INL_H_
#else
#define TIEDEXPORT_NATIVE_STREAM_BLOCKS_INL_H_
#endif

#include <cstddef>
#include <type_traits>

#include "hwy/highway.h"
#include "native/stream.hpp"
#include "native/widen-inl.h"

// 32 vector registers, or 16.
#undef TIEDEXPORT_MANY_REGISTERS
#if HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64
#define TIEDEXPORT_MANY_REGISTERS 1
#else
#define TIEDEXPORT_MANY_REGISTERS 0
#endif

HWY_BEFORE_NAMESPACE();
namespace tiedexport::internal::native::HWY_NAMESPACE {
namespace {
namespace blocks {

namespace hn = hwy::HWY_NAMESPACE;
using stored::kLanes;

/// The vectors of a product with W in cache. One sample with fp16 takes halves: Zen 4 widens 8
/// values while it loads them, in half a cycle, but 16 in two. With more samples, multiplying takes
/// longer, and with W in memory, loading does: 5 % longer where it takes more loads.
#if HWY_TARGET == HWY_AVX3
template <class T, std::size_t N>
using CachedTag = std::conditional_t<std::is_same<T, hwy::float16_t>::value && N == 1,
                                     hn::Half<stored::Float>, stored::Float>;
#else
template <class T, std::size_t N>
using CachedTag = stored::Float;
#endif

constexpr std::size_t kMostSamples = TIEDEXPORT_MANY_REGISTERS ? 8 : 4;

/// M for N samples, so that M * N sums and what feeds them fit the registers. One sample with 16
/// rows was no faster in fp32 and slower in fp16 (76 : 65 µs for the digits stack), for want of
/// registers for addresses; with 4 rows slower from memory (14.2 : 13.2 ms for 256 MiB). Calling
/// the beginnings of the next rows into L1 changed nothing.
constexpr std::size_t rows_at_once(std::size_t samples) {
  if (!TIEDEXPORT_MANY_REGISTERS) return samples <= 2 ? 4 : 3;
  if (samples <= 2) return 8;
  return samples == 3 ? 6 : 24 / samples;
}

/// What comes next, called from memory while a block is computed with: CPUs foresee neither the
/// next rows nor, over many rows, the next columns. At the pace of the computation, since CPUs drop
/// what is called faster than memory answers; into L2, since much else passes through L1 until
/// then.
template <class T>
struct Next {
  const T* rows;  // of W
  std::size_t stride;
  stream::Ahead ahead;
  const char* samples;        // of the next panel
  std::size_t samples_bytes;  // of them, for two vectors of W

  /// What corresponds to the two vectors from `k` of M rows and N samples.
  template <std::size_t M, std::size_t N>
  HWY_INLINE void call(std::size_t k) const {
    constexpr std::size_t bytes = 2 * kLanes * sizeof(T);
    if (ahead <= stream::Ahead::nothing) return;
    if (ahead == stream::Ahead::behind) {
      call_rows<M, bytes / 2>(k / 2);
    } else {
      call_rows<M, bytes>(k);
    }
    if (N <= 2) return;  // those of few samples stay in L2
    const char* p = samples + k / (2 * kLanes) * samples_bytes;
    for (std::size_t line = 0; line < samples_bytes; line += 64) __builtin_prefetch(p + line, 0, 2);
  }

 private:
  template <std::size_t M, std::size_t Bytes>
  HWY_INLINE void call_rows(std::size_t k) const {
    HWY_UNROLL(8)
    for (std::size_t m = 0; m < M; ++m) {
      const auto* p = reinterpret_cast<const char*>(rows + m * stride + k);
      HWY_UNROLL(2)
      for (std::size_t line = 0; line < Bytes; line += 64) __builtin_prefetch(p + line, 0, 2);
    }
  }
};

/// Keeps a value that was loaded in its register: GCC would rather load it again for each product,
/// and CPUs load 512 bits but once a cycle.
template <class Vector>
HWY_INLINE void keep(Vector& value) {
#if HWY_TARGET == HWY_AVX3
  __asm__("" : "+v"(value.raw));
#else
  (void)value;
#endif
}

/// Some columns of N samples: [vectors, N, lanes].
struct Panel {
  float* data;
  std::size_t columns;
  bool first, last;  // of all columns
};

/// From row to row of a block, in W and in z.
struct Strides {
  std::size_t w, z;
};

template <std::size_t M, class T, class Block>
HWY_INLINE void step(const T* w, std::size_t stride, std::size_t k, Block& block) {
  hn::Vec<typename Block::D> rows[M];
  HWY_UNROLL(16)
  for (std::size_t m = 0; m < M; ++m) rows[m] = stored::widened(block.d, w + m * stride + k);
  block.add(rows, k);
}

/// Gives `block` M rows of W, one vector of columns after another, the last one filled up with
/// zeros.
template <std::size_t M, std::size_t N, class T, class Block>
HWY_INLINE void multiply(const T* w, std::size_t stride, std::size_t columns, const Next<T>& next,
                         Block& block) {
  constexpr std::size_t lanes = hn::MaxLanes(Block::d);
  std::size_t k = 0;
  for (; k + 2 * kLanes <= columns; k += 2 * kLanes) {
    next.template call<M, N>(k);
    HWY_UNROLL(4)
    for (std::size_t i = 0; i < 2 * kLanes; i += lanes) step<M>(w, stride, k + i, block);
  }
  for (; k + lanes <= columns; k += lanes) step<M>(w, stride, k, block);
  if (k == columns) return;
  hn::Vec<typename Block::D> rows[M];
  HWY_UNROLL(16)
  for (std::size_t m = 0; m < M; ++m)
    rows[m] = stored::widened_head(block.d, w + m * stride + k, columns - k);
  block.add(rows, k);
}

template <class Tag, std::size_t M, std::size_t N>
struct Dot {
  using D = Tag;
  static constexpr D d{};
  const float* x;
  hn::Vec<D> sums[M][N];

  HWY_INLINE void add(const hn::Vec<D> (&rows)[M], std::size_t k) {
    HWY_UNROLL(8)
    for (std::size_t n = 0; n < N; ++n) {
      hn::Vec<D> sample = hn::Load(d, x + k * N + n * hn::MaxLanes(d));
      keep(sample);
      HWY_UNROLL(16)
      for (std::size_t m = 0; m < M; ++m) sums[m][n] = hn::MulAdd(rows[m], sample, sums[m][n]);
    }
  }
};

/// sums[m, n] (+)= Σ_k x[n, k] w[m, k] by lane of k, and all lanes into z[m, n] at the last panel.
template <class Tag, std::size_t M, std::size_t N, class T>
HWY_NOINLINE void dot(const T* w, const Strides& strides, const Panel& x, float* sums, float* z,
                      Next<T> next) {
  const Tag d;
  Dot<Tag, M, N> block{x.data, {}};
  HWY_UNROLL(16)
  for (std::size_t m = 0; m < M; ++m) {
    HWY_UNROLL(8)
    for (std::size_t n = 0; n < N; ++n)
      block.sums[m][n] = x.first ? hn::Zero(d) : hn::Load(d, sums + (m * N + n) * kLanes);
  }
  multiply<M, N>(w, strides.w, x.columns, next, block);
  HWY_UNROLL(16)
  for (std::size_t m = 0; m < M; ++m) {
    HWY_UNROLL(8)
    for (std::size_t n = 0; n < N; ++n) {
      if (x.last)
        z[m * strides.z + n] = hn::GetLane(hn::SumOfLanes(d, block.sums[m][n]));
      else
        hn::Store(block.sums[m][n], d, sums + (m * N + n) * kLanes);
    }
  }
}

template <class Tag, std::size_t M, std::size_t N>
struct Add {
  using D = Tag;
  static constexpr D d{};
  float* out;
  hn::Vec<D> z[M][N];

  HWY_INLINE void add(const hn::Vec<D> (&rows)[M], std::size_t k) {
    HWY_UNROLL(8)
    for (std::size_t n = 0; n < N; ++n) {
      float* at = out + k * N + n * hn::MaxLanes(d);
      hn::Vec<D> sum = hn::Load(d, at);
      HWY_UNROLL(16)
      for (std::size_t m = 0; m < M; ++m) sum = hn::MulAdd(rows[m], z[m][n], sum);
      hn::Store(sum, d, at);
    }
  }
};

/// out[n, k] += Σ_m z[m, n] w[m, k]
template <class Tag, std::size_t M, std::size_t N, class T>
HWY_NOINLINE void add(const T* w, const Strides& strides, const float* z, const Panel& out,
                      Next<T> next) {
  const Tag d;
  Add<Tag, M, N> block{out.data, {}};
  HWY_UNROLL(16)
  for (std::size_t m = 0; m < M; ++m) {
    HWY_UNROLL(8)
    for (std::size_t n = 0; n < N; ++n) block.z[m][n] = hn::Set(d, z[m * strides.z + n]);
  }
  multiply<M, N>(w, strides.w, out.columns, next, block);
}

}  // namespace blocks
}  // namespace
}  // namespace tiedexport::internal::native::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
