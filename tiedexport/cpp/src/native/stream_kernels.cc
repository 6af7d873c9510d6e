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

/// Rows of W in the order in which they are computed with: panel by panel of columns, all rows
/// before the next panel, in blocks of `most` rows, then of one.
template <class T, std::size_t N>
struct Sweep {
  const stream::Rows& w;
  const stream::Panels& samples;
  std::size_t most;

  const T* first() const { return static_cast<const T*>(w.data); }
  const T* rows_behind() const { return first() + w.count * w.stride; }
  bool last_panel(std::size_t c) const { return c + samples.width >= w.columns; }

  template <class Compute>
  HWY_INLINE void run(const Compute& compute) const {
    for (std::size_t c = 0; c < w.columns; c += samples.width) {
      const blocks::Panel panel{samples.data + c * N, HWY_MIN(samples.width, w.columns - c),
                                c == 0};
      for (std::size_t i = 0; i < w.count;) {
        const std::size_t rows = i + most <= w.count ? most : 1;
        compute(first() + i * w.stride + c, rows, i, panel, after(i, rows, c));
        i += rows;
      }
    }
  }
  /// What comes after the rows from `i` in the panel at `c`: other rows in it, or the next panel,
  /// or other rows. With rows that are in cache there is time to call half of those behind.
  blocks::Next<T> after(std::size_t i, std::size_t rows, std::size_t c) const {
    const std::size_t next_panel = last_panel(c) ? 0 : c + samples.width;
    const std::size_t blocks = (w.count + most - 1) / most,
                      bytes = samples.width * N * sizeof(float);
    const auto* called = reinterpret_cast<const char*>(samples.data + next_panel * N);
    blocks::Next<T> next{nullptr, w.stride, w.cached, called + i / most * (bytes / blocks),
                         2 * stored::kLanes * N * sizeof(float) / blocks};
    if (next.half_pace)
      next.rows = rows_behind() + i * w.stride + c / 2;
    else if (i + rows < w.count)
      next.rows = first() + (i + rows) * w.stride + c;
    else
      next.rows = last_panel(c) ? rows_behind() : first() + next_panel;
    return next;
  }
};

template <class T, std::size_t N>
struct Dots {
  static constexpr std::size_t kRows = blocks::rows_at_once(N);
  std::size_t stride;
  float* sums;

  HWY_INLINE void operator()(const T* w, std::size_t rows, std::size_t i, const blocks::Panel& x,
                             const blocks::Next<T>& next) const {
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
  Sweep<T, N>{w, x, Dots<T, N>::kRows}.run(Dots<T, N>{w.stride, sums});
  for (std::size_t i = 0; i < w.count * N; ++i) z[i] = blocks::sum(sums + i * stored::kLanes);
}

template <class T, std::size_t N>
struct AddRows {
  static constexpr std::size_t kRows = blocks::rows_at_once(N);
  std::size_t stride;
  const float* z;

  HWY_INLINE void operator()(const T* w, std::size_t rows, std::size_t i, const blocks::Panel& out,
                             const blocks::Next<T>& next) const {
    if (rows == kRows)
      blocks::add<T, kRows, N>(w, stride, z + i * N, out, next);
    else
      blocks::add<T, 1, N>(w, stride, z + i * N, out, next);
  }
};

template <class T, std::size_t N>
void add_rows_of(const stream::Rows& w, const float* z, const stream::Panels& out) {
  Sweep<T, N>{w, out, AddRows<T, N>::kRows}.run(AddRows<T, N>{w.stride, z});
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
