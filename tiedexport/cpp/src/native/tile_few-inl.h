// Pairs of bfloat16 where the samples are few, so that a vector of samples would be half empty:
// vectors lie along the rows of W in both products, and W is read where it lies, without staging.
// Included by tile_pairs-inl.h, in its namespace.

// Three loads of W and eight of samples serve 24 products. Two blocks of rows are whole pairs.
constexpr std::size_t kFewLanes = 8, kFewRows = 3, kFewGrain = 2 * kFewRows;
constexpr std::size_t kWide = 2 * kLanes;                      // bfloat16 in a vector
constexpr std::size_t kFewTileBytes = std::size_t{576} << 10;  // of W: half of L2, beside sums
constexpr std::size_t kFewAhead = 1024;                        // bytes of a row

HWY_INLINE __mmask32 wide_mask(std::size_t count) {
  return count < kWide ? (__mmask32{1} << count) - 1 : ~__mmask32{0};
}

HWY_INLINE __m512bh wide_load(const std::byte* address, __mmask32 mask) {
  return (__m512bh)_mm512_maskz_loadu_epi16(mask, address);
}

/// [vectors of W][kFewLanes][kWide], the last vector filled up with zeros.
void few_pack(const PackTask& task) {
  const std::size_t elements = task.elements - task.element;
  float* out = task.out;
  for (std::size_t from = 0; from < elements; from += kWide) {
    for (std::size_t lane = 0; lane < kFewLanes; ++lane, out += kLanes) {
      if (task.first + lane >= task.batch) {
        std::fill_n(out, kLineUnits, 0.0F);
        continue;
      }
      const float* sample = task.samples + (task.first + lane) * task.sample_stride;
      line_of_units(sample + task.element + from, elements - from, out);
    }
  }
}

/// A vector of columns, of which `mask` exist, of kFewRows rows with kCount samples.
template <std::size_t kCount>
HWY_INLINE void few_encode_step(const std::byte* const* w, __mmask32 mask, const float* x,
                                __m512 (&sums)[kFewRows][kCount]) {
  __m512bh weights[kFewRows];
  TIEDEXPORT_UNROLL(8) for (std::size_t r = 0; r < kFewRows; ++r) {
    weights[r] = wide_load(w[r], mask);
  }
  TIEDEXPORT_UNROLL(8) for (std::size_t s = 0; s < kCount; ++s) {
    const auto sample = (__m512bh)_mm512_load_ps(x + s * kLanes);
    TIEDEXPORT_UNROLL(8) for (std::size_t r = 0; r < kFewRows; ++r) {
      sums[r][s] = _mm512_dpbf16_ps(sums[r][s], weights[r], sample);
    }
  }
}

template <std::size_t kCount>
void few_encode_rows(const EncodeTask& task) {
  const std::size_t columns = task.w.columns, stride = columns * 2;
  for (std::size_t row = task.begin; row < task.end; row += kFewRows) {
    const std::byte* w[kFewRows];
    __m512 sums[kFewRows][kCount];
    TIEDEXPORT_UNROLL(8) for (std::size_t r = 0; r < kFewRows; ++r) {
      w[r] = static_cast<const std::byte*>(task.w.data) + std::min(row + r, task.end - 1) * stride;
      TIEDEXPORT_UNROLL(8) for (std::size_t s = 0; s < kCount; ++s) {
        sums[r][s] = _mm512_setzero_ps();
      }
    }
    const float* x = task.x;
    std::size_t k = 0;
    for (; k + kWide <= columns; k += kWide, x += kFewLanes * kLanes) {
      few_encode_step<kCount>(w, ~__mmask32{0}, x, sums);
      TIEDEXPORT_UNROLL(8) for (std::size_t r = 0; r < kFewRows; ++r) {
        prefetch_near(w[r] + kFewAhead);
        w[r] += kWide * 2;
      }
    }
    if (k < columns) few_encode_step<kCount>(w, wide_mask(columns - k), x, sums);
    TIEDEXPORT_UNROLL(8) for (std::size_t r = 0; r < kFewRows; ++r) {
      float* z = task.z + (row + r - task.begin) * task.z_stride;
      TIEDEXPORT_UNROLL(8) for (std::size_t s = 0; s < kCount; ++s) {
        z[s] = _mm512_reduce_add_ps(sums[r][s]);
      }
    }
  }
}

/// Sums of kCount samples with kWide columns, of which `mask` exist. Vectors of two rows are
/// interleaved within quarters, so that the first sums are those of the lower halves of quarters.
template <std::size_t kCount>
HWY_INLINE void few_decode_block(const DecodeTask& task, std::size_t column, __mmask32 mask,
                                 const std::byte* ahead) {
  const std::size_t stride = task.w.columns * 2;
  const auto* w = static_cast<const std::byte*>(task.w.data) + task.begin * stride + column * 2;
  const auto low = static_cast<__mmask16>(mask), high = static_cast<__mmask16>(mask >> kLanes);
  __m512 sums[kCount][2];
  TIEDEXPORT_UNROLL(8) for (std::size_t s = 0; s < kCount; ++s) {
    const float* out = task.out + s * task.w.columns + column;
    __m512 first = _mm512_setzero_ps(), second = first;
    if (task.accumulate) {
      first = _mm512_maskz_loadu_ps(low, out);
      second = _mm512_maskz_loadu_ps(high, out + kLanes);
    }
    sums[s][0] = _mm512_shuffle_f32x4(first, second, 0x88);
    sums[s][1] = _mm512_shuffle_f32x4(first, second, 0xDD);
  }
  const float* z = task.z;
  for (std::size_t row = task.begin; row < task.end; row += 2, w += 2 * stride) {
    const __m512i upper = (__m512i)wide_load(w, mask);
    const __m512i lower =
        row + 1 < task.end ? (__m512i)wide_load(w + stride, mask) : _mm512_setzero_si512();
    const auto first = (__m512bh)_mm512_unpacklo_epi16(upper, lower);
    const auto second = (__m512bh)_mm512_unpackhi_epi16(upper, lower);
    prefetch_far(ahead);
    prefetch_far(ahead + stride);
    ahead += 2 * stride;
    TIEDEXPORT_UNROLL(8) for (std::size_t s = 0; s < kCount; ++s) {
      const auto hidden = (__m512bh)_mm512_set1_ps(z[s]);
      sums[s][0] = _mm512_dpbf16_ps(sums[s][0], hidden, first);
      sums[s][1] = _mm512_dpbf16_ps(sums[s][1], hidden, second);
    }
    z += task.z_stride;
  }
  TIEDEXPORT_UNROLL(8) for (std::size_t s = 0; s < kCount; ++s) {
    float* out = task.out + s * task.w.columns + column;
    const __m512 first = _mm512_shuffle_f32x4(sums[s][0], sums[s][1], 0x44);
    const __m512 second = _mm512_shuffle_f32x4(sums[s][0], sums[s][1], 0xEE);
    _mm512_mask_storeu_ps(out, low, _mm512_shuffle_f32x4(first, first, 0xD8));
    _mm512_mask_storeu_ps(out + kLanes, high, _mm512_shuffle_f32x4(second, second, 0xD8));
  }
}

template <std::size_t kCount>
void few_decode_columns(const DecodeTask& task) {
  const std::size_t stride = task.w.columns * 2;
  const std::size_t rows = task.end - task.begin;
  const auto* next = static_cast<const std::byte*>(task.w.data) +
                     (task.end + rows <= task.w.rows ? task.end : task.begin) * stride;
  std::size_t k = task.columns.begin;
  for (; k + kWide <= task.columns.end; k += kWide) {
    few_decode_block<kCount>(task, k, ~__mmask32{0}, next + k * 2);
  }
  if (k < task.columns.end) {
    few_decode_block<kCount>(task, k, wide_mask(task.columns.end - k), next + k * 2);
  }
}

#define TIEDEXPORT_TILE_FEW(function)                  \
  {function<1>, function<2>, function<3>, function<4>, \
   function<5>, function<6>, function<7>, function<8>}
constexpr void (*kFewEncodes[])(const EncodeTask&) = TIEDEXPORT_TILE_FEW(few_encode_rows);
constexpr void (*kFewDecodes[])(const DecodeTask&) = TIEDEXPORT_TILE_FEW(few_decode_columns);
#undef TIEDEXPORT_TILE_FEW

void few_encode(const EncodeTask& task) {
  EncodeTask group = task;
  for (std::size_t b = 0; b < task.batch; b += kFewLanes) {
    group.x = task.x + b * task.x_units;
    group.z = task.z + b;
    kFewEncodes[std::min(kFewLanes, task.batch - b) - 1](group);
  }
}

void few_decode(const DecodeTask& task) {
  DecodeTask group = task;
  for (std::size_t b = 0; b < task.batch; b += kFewLanes) {
    group.z = task.z + b;
    group.out = task.out + b * task.w.columns;
    kFewDecodes[std::min(kFewLanes, task.batch - b) - 1](group);
  }
}

const Kernels& few_table() {
  static constexpr Kernels kKernels = {
      kFewLanes,     1, kFewGrain, kWide,      kElements, 0,      0,         0, kTileRows,
      kFewTileBytes, 0, few_pack,  few_encode, pack,      narrow, few_decode};
  return kKernels;
}
