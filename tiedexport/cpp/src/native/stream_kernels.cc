// The two products of a few samples with rows of W, for each instruction set. Sums of a block of
// rows and samples stay in registers; W is widened in registers, once for each product.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "native/stream_kernels.cc"
#include "native/dispatch.hpp"
// The order counts: dispatch.hpp chooses the targets.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "native/stream.hpp"
#include "native/stream_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tiedexport::internal::native::HWY_NAMESPACE {
namespace {

/// Computes with `w` panel by panel, all rows before the next panel, in blocks of M rows, then of
/// one.
template <class T, std::size_t N, class Compute>
HWY_INLINE void sweep(const stream::Rows& w, const stream::Panels& samples,
                      const Compute& compute) {
  const auto* first = static_cast<const T*>(w.data);
  for (std::size_t c = 0; c < w.columns; c += samples.width) {
    const blocks::Panel panel{samples.data + c * N, HWY_MIN(samples.width, w.columns - c), c == 0};
    // Then come the same rows, or, behind the last panel, other ones.
    const T* next_panel =
        first + (c + samples.width < w.columns ? c + samples.width : w.count * w.stride);
    for (std::size_t i = 0; i < w.count;) {
      const std::size_t rows = i + Compute::kRows <= w.count ? Compute::kRows : 1;
      const T* block = first + i * w.stride + c;
      const T* next = i + rows < w.count ? block + rows * w.stride : next_panel;
      compute(block, rows, i, panel, next);
      i += rows;
    }
  }
}

template <class T, std::size_t N>
struct Dots {
  static constexpr std::size_t kRows = blocks::rows_at_once(N);
  std::size_t stride;
  float* sums;

  HWY_INLINE void operator()(const T* w, std::size_t rows, std::size_t i, const blocks::Panel& x,
                             const T* next) const {
    float* at = sums + i * N * stored::kLanes;
    if (rows == kRows)
      blocks::dot<T, kRows, N>(w, stride, x, at, next);
    else
      blocks::dot<T, 1, N>(w, stride, x, at, next);
  }
};

template <class T, std::size_t N>
void dots_of(const stream::Rows& w, const stream::Panels& x, float* z) {
  HWY_ALIGN float sums[stream::kMostRows * N * stored::kLanes];
  sweep<T, N>(w, x, Dots<T, N>{w.stride, sums});
  for (std::size_t i = 0; i < w.count * N; ++i) z[i] = blocks::sum(sums + i * stored::kLanes);
}

template <class T, std::size_t N>
struct AddRows {
  static constexpr std::size_t kRows = blocks::rows_at_once(N);
  std::size_t stride;
  const float* z;

  HWY_INLINE void operator()(const T* w, std::size_t rows, std::size_t i, const blocks::Panel& out,
                             const T* next) const {
    if (rows == kRows)
      blocks::add<T, kRows, N>(w, stride, z + i * N, out, next);
    else
      blocks::add<T, 1, N>(w, stride, z + i * N, out, next);
  }
};

template <class T, std::size_t N>
void add_rows_of(const stream::Rows& w, const float* z, const stream::Panels& out) {
  sweep<T, N>(w, out, AddRows<T, N>{w.stride, z});
}

template <std::size_t N>
void dots_of_samples(const stream::Rows& w, const stream::Panels& x, float* z) {
  switch (w.type) {
    case Type::fp32:
      return dots_of<float, N>(w, x, z);
    case Type::fp16:
      return dots_of<hwy::float16_t, N>(w, x, z);
    case Type::bf16:
      return dots_of<hwy::bfloat16_t, N>(w, x, z);
  }
}

template <std::size_t N>
void add_rows_of_samples(const stream::Rows& w, const float* z, const stream::Panels& out) {
  switch (w.type) {
    case Type::fp32:
      return add_rows_of<float, N>(w, z, out);
    case Type::fp16:
      return add_rows_of<hwy::float16_t, N>(w, z, out);
    case Type::bf16:
      return add_rows_of<hwy::bfloat16_t, N>(w, z, out);
  }
}

std::size_t block(std::size_t samples) {
  const std::size_t held = HWY_MIN(samples, blocks::kMostSamples);
  return held > 6 ? 8 : held == 5 ? 6 : held;
}

void dots(const stream::Rows& w, const stream::Panels& x, float* z) {
  switch (x.samples) {
    case 1:
      return dots_of_samples<1>(w, x, z);
    case 2:
      return dots_of_samples<2>(w, x, z);
    case 3:
      return dots_of_samples<3>(w, x, z);
    case 4:
      return dots_of_samples<4>(w, x, z);
#if TIEDEXPORT_MANY_REGISTERS
    case 6:
      return dots_of_samples<6>(w, x, z);
    case 8:
      return dots_of_samples<8>(w, x, z);
#endif
  }
}

void add_rows(const stream::Rows& w, const float* z, const stream::Panels& out) {
  switch (out.samples) {
    case 1:
      return add_rows_of_samples<1>(w, z, out);
    case 2:
      return add_rows_of_samples<2>(w, z, out);
    case 3:
      return add_rows_of_samples<3>(w, z, out);
    case 4:
      return add_rows_of_samples<4>(w, z, out);
#if TIEDEXPORT_MANY_REGISTERS
    case 6:
      return add_rows_of_samples<6>(w, z, out);
    case 8:
      return add_rows_of_samples<8>(w, z, out);
#endif
  }
}

stream::Kernels stream_kernels() {
  return {stored::kLanes, &block, &blocks::rows_at_once, &dots, &add_rows};
}

}  // namespace
}  // namespace tiedexport::internal::native::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiedexport::internal::native {

stream::Kernels stream::kernels(Simd simd) { return TIEDEXPORT_AT(simd, stream_kernels)(); }

}  // namespace tiedexport::internal::native
#endif
