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

/// The rows of a block lie as far apart as there are blocks, where W is in cache and rows are
/// shorter than this: each is then followed by that of the next block, and the CPU's prefetching
/// goes on where it began anew. 32 rows of 784 fp16 from L3, in GB/s: 60 where a block holds
/// neighbours, 68 with runs of two rows, 72 of four; of 784 fp32 84, 86 and 82.
constexpr std::size_t kShortRowBytes = 3 << 10;

/// A block of rows: `first` and those that lie `apart`. `order` counts the rows of blocks before.
struct Place {
  std::size_t rows, first, apart, order;
};

/// Rows of W in the order in which they are computed with: panel by panel of columns, all rows
/// before the next panel, in blocks of M rows, then of one.
template <class T, std::size_t N, std::size_t M>
class Sweep {
 public:
  Sweep(const stream::Rows& w, const stream::Panels& samples)
      : w_(w), samples_(samples), first_(static_cast<const T*>(w.data)) {
    const std::size_t blocks = (w.count + M - 1) / M;
    samples_floats_ = samples.width * N / blocks;
    samples_bytes_ = 2 * stored::kLanes * N * sizeof(float) / blocks;
    const bool by_runs = w.ahead <= stream::Ahead::nothing && w.stride * sizeof(T) < kShortRowBytes;
    run_ = by_runs ? HWY_MAX(w.count / M, 1) : 1;
  }

  template <class Compute>
  HWY_INLINE void run(const Compute& compute) const {
    for (std::size_t c = 0; c < w_.columns; c += samples_.width) {
      const blocks::Panel panel{samples_.data + c * N, HWY_MIN(samples_.width, w_.columns - c),
                                c == 0, last_panel(c)};
      std::size_t i = 0;
      for (; i + M * run_ <= w_.count; i += M * run_) {
        for (std::size_t r = 0; r < run_; ++r)
          compute(first_ + (i + r) * w_.stride + c, {M, i + r, run_, i + r * M}, panel,
                  after(i + r, M, c));
      }
      for (; i < w_.count; ++i)
        compute(first_ + i * w_.stride + c, {1, i, 1, i}, panel, after(i, 1, c));
    }
  }

 private:
  const T* rows_behind() const { return first_ + w_.count * w_.stride; }
  bool last_panel(std::size_t c) const { return c + samples_.width >= w_.columns; }

  /// What comes after the rows from `i` in the panel at `c`: other rows in it, or the next panel,
  /// or other rows.
  HWY_INLINE blocks::Next<T> after(std::size_t i, std::size_t rows, std::size_t c) const {
    const std::size_t next_panel = last_panel(c) ? 0 : c + samples_.width;
    const float* called = samples_.data + next_panel * N + i / M * samples_floats_;
    blocks::Next<T> next{nullptr, w_.stride, w_.ahead, reinterpret_cast<const char*>(called),
                         samples_bytes_};
    if (w_.ahead == stream::Ahead::behind)
      next.rows = rows_behind() + i * w_.stride + c / 2;
    else if (i + rows < w_.count)
      next.rows = first_ + (i + rows) * w_.stride + c;
    else
      next.rows = last_panel(c) ? rows_behind() : first_ + next_panel;
    return next;
  }

  const stream::Rows& w_;
  const stream::Panels& samples_;
  const T* first_;
  std::size_t samples_floats_, samples_bytes_, run_;
};

template <class T, std::size_t N, class Tag>
struct Dots {
  static constexpr std::size_t kRows = blocks::rows_at_once(N);
  std::size_t stride;
  float *sums, *z;

  HWY_INLINE void operator()(const T* w, const Place& place, const blocks::Panel& x,
                             const blocks::Next<T>& next) const {
    float* at = sums + place.order * N * stored::kLanes;
    const blocks::Strides strides{stride * place.apart, N * place.apart};
    if (place.rows == kRows)
      blocks::dot<Tag, kRows, N>(w, strides, x, at, z + place.first * N, next);
    else
      blocks::dot<Tag, 1, N>(w, strides, x, at, z + place.first * N, next);
  }
};

struct DotsProduct {
  const stream::Rows& w;
  const stream::Panels& x;
  float* z;

  template <class T, std::size_t N>
  void of() const {
    HWY_ALIGN float sums[stream::kMostRows * N * stored::kLanes];
    const Sweep<T, N, blocks::rows_at_once(N)> sweep(w, x);
    if (w.ahead == stream::Ahead::cached)
      sweep.run(Dots<T, N, blocks::CachedTag<T, N>>{w.stride, sums, z});
    else
      sweep.run(Dots<T, N, stored::Float>{w.stride, sums, z});
  }
};

template <class T, std::size_t N, class Tag>
struct AddRows {
  static constexpr std::size_t kRows = blocks::rows_at_once(N);
  std::size_t stride;
  const float* z;

  HWY_INLINE void operator()(const T* w, const Place& place, const blocks::Panel& out,
                             const blocks::Next<T>& next) const {
    const blocks::Strides strides{stride * place.apart, N * place.apart};
    if (place.rows == kRows)
      blocks::add<Tag, kRows, N>(w, strides, z + place.first * N, out, next);
    else
      blocks::add<Tag, 1, N>(w, strides, z + place.first * N, out, next);
  }
};

struct AddRowsProduct {
  const stream::Rows& w;
  const float* z;
  const stream::Panels& out;

  template <class T, std::size_t N>
  void of() const {
    const Sweep<T, N, blocks::rows_at_once(N)> sweep(w, out);
    if (w.ahead == stream::Ahead::cached)
      sweep.run(AddRows<T, N, blocks::CachedTag<T, N>>{w.stride, z});
    else
      sweep.run(AddRows<T, N, stored::Float>{w.stride, z});
  }
};

std::size_t block(std::size_t samples) {
  const std::size_t held = HWY_MIN(samples, blocks::kMostSamples);
  return held > 6 ? 8 : held == 5 ? 6 : held;
}

/// product.of<T, N>() for the type of W and the samples of a panel.
template <std::size_t N, class Product>
void of_type(Type type, const Product& product) {
  switch (type) {
    case Type::fp32:
      return product.template of<float, N>();
    case Type::fp16:
      return product.template of<hwy::float16_t, N>();
    case Type::bf16:
      return product.template of<hwy::bfloat16_t, N>();
  }
}

template <class Product>
void of_samples(std::size_t samples, Type type, const Product& product) {
  switch (samples) {
    case 1:
      return of_type<1>(type, product);
    case 2:
      return of_type<2>(type, product);
    case 3:
      return of_type<3>(type, product);
    case 4:
      return of_type<4>(type, product);
#if TIEDEXPORT_MANY_REGISTERS
    case 6:
      return of_type<6>(type, product);
    case 8:
      return of_type<8>(type, product);
#endif
  }
}

void dots(const stream::Rows& w, const stream::Panels& x, float* z) {
  of_samples(x.samples, w.type, DotsProduct{w, x, z});
}

void add_rows(const stream::Rows& w, const float* z, const stream::Panels& out) {
  of_samples(out.samples, w.type, AddRowsProduct{w, z, out});
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
