// Units of one fp32: every target has these. Included once for each.
HWY_BEFORE_NAMESPACE();
namespace tiedexport::internal::native::tile::HWY_NAMESPACE {
namespace {
namespace single {

namespace stored = native::HWY_NAMESPACE::stored;

constexpr std::size_t kElements = 1, kTileRows = kTileUnits * kElements;
constexpr bool made_of_units(Type type) { return type == Type::fp32; }

HWY_INLINE Vector multiply_add(Vector a, Vector b, Vector sum) { return hn::MulAdd(a, b, sum); }

HWY_INLINE void line_of_units(const float* elements, std::size_t left, float* line) {
  std::copy_n(elements, std::min(left, kLineUnits), line);
}

/// Whether a few instructions widen it, so that blocks can do it as they go.
constexpr bool staged_by_blocks(Type type) {
  return type != Type::fp16 || TIEDEXPORT_CONVERTS_FP16;
}

HWY_INLINE void prefetch_unit(Type type, const std::byte* row, std::size_t) {
  TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kPanelVectors; ++v) {
    prefetch_near(row + v * kLanes * size_of(type));
  }
}

template <class Element>
HWY_INLINE void widen_unit(const std::byte* row, float* out) {
  const auto* values = reinterpret_cast<const Element*>(row);
  TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kPanelVectors; ++v) {
    hn::Store(stored::widened(Float(), values + v * kLanes), Float(), out + v * kLanes);
  }
}

HWY_INLINE void stage_unit(Type type, const std::byte* row, std::size_t, float* out) {
  if (type == Type::fp32) {
    widen_unit<float>(row, out);
  } else if (type == Type::bf16) {
    widen_unit<hwy::bfloat16_t>(row, out);
#if TIEDEXPORT_CONVERTS_FP16
  } else {
    widen_unit<hwy::float16_t>(row, out);
#endif
  }
}

/// `out` has room for whole vectors.
template <class Element>
void stage_elements(const std::byte* bytes, std::size_t elements, float* out) {
  const Float d;
  const auto* values = reinterpret_cast<const Element*>(bytes);
  std::size_t i = 0;
  for (; i + kLanes <= elements; i += kLanes) hn::Store(stored::widened(d, values + i), d, out + i);
  if (i < elements) hn::Store(stored::widened_head(d, values + i, elements - i), d, out + i);
}

void stage_row(Type type, const std::byte* row, std::size_t elements, float* out) {
  switch (type) {
    case Type::fp32:
      return stage_elements<float>(row, elements, out);
    case Type::fp16:
      return stage_elements<hwy::float16_t>(row, elements, out);
    case Type::bf16:
      return stage_elements<hwy::bfloat16_t>(row, elements, out);
  }
}

void stage_columns(Type type, const std::byte* w, std::size_t, std::size_t, std::size_t columns,
                   float* out) {
  stage_row(type, w, columns, out);
}

void narrow(const float* z, std::size_t rows, std::size_t stride, float* units) {
  std::copy_n(z, rows * stride, units);
}

#include "native/tile_block-inl.h"
#include "native/tile_sweep-inl.h"

}  // namespace single

const Kernels& singles() { return single::table(); }

}  // namespace
}  // namespace tiedexport::internal::native::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
