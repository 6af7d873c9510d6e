// The two blocks of sums that tile kernels keep in registers; included once for each target, and
// once more for its pairs of bfloat16, inside the namespace that has `multiply_add` and
// `stage_row` for that kind of unit. No guard: it is meant to be included again.

/// Sums of kRows rows of W with kVectors vectors of samples, over some of the units.
struct EncodeBlock {
  const std::byte* w;  // units at any address, `w_stride` bytes from row to row
  std::size_t w_stride;
  std::size_t rows;                      // of kRows that exist; the last one stands for the others
  const std::byte* ahead;                // what comes after them in W as it is stored
  std::size_t ahead_stride, ahead_step;  // bytes from row to row, and for kStepUnits units
  const float* x;                        // [units, kVectors * kLanes]
  std::size_t units;
  float* z;
  std::size_t z_stride;
  bool accumulate;
};

HWY_INLINE float unit_at(const std::byte* address) {
  float unit;  // four bytes, at any address
  std::memcpy(&unit, address, sizeof(unit));
  return unit;
}

template <std::size_t kVectors>
HWY_INLINE void encode_step(const std::byte* const* w, std::size_t unit, const float* x,
                            Vector (&sums)[kRows][kVectors]) {
  const Float d;
  Vector samples[kVectors];
  TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kVectors; ++v) {
    samples[v] = hn::Load(d, x + (unit * kVectors + v) * kLanes);
  }
  TIEDEXPORT_UNROLL(8) for (std::size_t r = 0; r < kRows; ++r) {
    const Vector weight = hn::Set(d, unit_at(w[r] + unit * kUnitBytes));
    TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kVectors; ++v) {
      sums[r][v] = multiply_add(weight, samples[v], sums[r][v]);
    }
  }
}

template <std::size_t kVectors>
void encode_block(const EncodeBlock& block) {
  const Float d;
  const std::byte* w[kRows];
  Vector sums[kRows][kVectors];
  TIEDEXPORT_UNROLL(8) for (std::size_t r = 0; r < kRows; ++r) {
    w[r] = block.w + std::min(r, block.rows - 1) * block.w_stride;
    TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(d);
  }
  if (block.accumulate) {
    TIEDEXPORT_UNROLL(8) for (std::size_t r = 0; r < kRows; ++r) {
      TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kVectors; ++v) {
        sums[r][v] = hn::Load(d, block.z + r * block.z_stride + v * kLanes);
      }
    }
  }
  const float* HWY_RESTRICT x = block.x;
  const std::size_t units = block.units, whole = units - units % kStepUnits;
  const std::byte* ahead = block.ahead;
  for (std::size_t u = 0; u < whole; u += kStepUnits, ahead += block.ahead_step) {
    TIEDEXPORT_UNROLL(8) for (std::size_t r = 0; r < kRows; ++r) {
      prefetch_far(ahead + r * block.ahead_stride);
    }
    TIEDEXPORT_UNROLL(8) for (std::size_t i = 0; i < kStepUnits; ++i) {
      encode_step(w, u + i, x, sums);
    }
  }
  for (std::size_t u = whole; u < units; ++u) encode_step(w, u, x, sums);
  TIEDEXPORT_UNROLL(8) for (std::size_t r = 0; r < kRows; ++r) {
    TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kVectors; ++v) {
      hn::Store(sums[r][v], d, block.z + r * block.z_stride + v * kLanes);
    }
  }
}

/// Copies a strip of W, panel beside panel, while another is in use, a few lines at a time: rows
/// lie a power of two apart as often as not, so that a strip read at once would fall into a few
/// sets of the caches, and fetched ahead would be gone before it is used. Several panels of a row
/// are copied in turn, since each row is another page.
struct Staging {
  Type type;
  const std::byte* w;  // the next unit of the next panel
  std::size_t w_stride, panels, panel, left, a_step;
  float* out;
  std::size_t out_stride;  // from panel to panel
};

HWY_INLINE void stage_next(Staging& staging) {
  prefetch_unit(staging.type, staging.w + kStageAhead * kElements * staging.w_stride,
                staging.w_stride);
  stage_unit(staging.type, staging.w, staging.w_stride, staging.out);
  --staging.left;
  const std::size_t panel_bytes = kPanel * size_of(staging.type);
  if (++staging.panel < staging.panels) {
    staging.w += panel_bytes;
    staging.out += staging.out_stride;
  } else {
    staging.panel = 0;
    staging.w += kElements * staging.w_stride - (staging.panels - 1) * panel_bytes;
    staging.out -= (staging.panels - 1) * staging.out_stride - kPanel;
  }
}

/// Sums of kSamples samples with kVectors vectors of a panel, over the rows of a tile.
struct DecodeBlock {
  const float* panel;  // [units, kPanel]
  const float* z;      // [units, z_stride]
  std::size_t z_stride, units;
  float* out;
  std::size_t out_stride;
  bool accumulate;
};

template <std::size_t kSamples, std::size_t kVectors>
HWY_INLINE void decode_step(const float* panel, const float* z,
                            Vector (&sums)[kSamples][kVectors]) {
  const Float d;
  Vector weights[kVectors];
  TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kVectors; ++v) {
    weights[v] = hn::Load(d, panel + v * kLanes);
  }
  TIEDEXPORT_UNROLL(8) for (std::size_t s = 0; s < kSamples; ++s) {
    const Vector hidden = hn::Set(d, z[s]);
    TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kVectors; ++v) {
      sums[s][v] = multiply_add(hidden, weights[v], sums[s][v]);
    }
  }
}

template <std::size_t kVectors>
HWY_INLINE void prefetch_out(const float* out) {
  TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kVectors; ++v) {
    prefetch_to_write(out + v * kLanes);
  }
  prefetch_to_write(out + kVectors * kLanes - 1);
}

template <std::size_t kSamples, std::size_t kVectors>
void decode_block(const DecodeBlock& block, Staging& to_stage) {
  const Float d;
  Staging staging = to_stage;
  Vector sums[kSamples][kVectors];
  TIEDEXPORT_UNROLL(8) for (std::size_t s = 0; s < kSamples; ++s) {
    TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kVectors; ++v) sums[s][v] = hn::Zero(d);
  }
  const float* HWY_RESTRICT panel = block.panel;
  const float* HWY_RESTRICT z = block.z;
  const std::size_t stride = block.z_stride, units = block.units;
  // The output is fetched shortly before it is needed, lest W drive it out again.
  for (std::size_t steps = units / kStepUnits; steps > 0; --steps) {
    for (std::size_t i = std::min(staging.a_step, staging.left); i > 0; --i) stage_next(staging);
    if (steps <= kSamples) prefetch_out<kVectors>(block.out + (steps - 1) * block.out_stride);
    TIEDEXPORT_UNROLL(4) for (std::size_t i = 0; i < kStepUnits; ++i) {
      decode_step(panel, z, sums);
      panel += kPanel;
      z += stride;
    }
  }
  for (std::size_t u = units % kStepUnits; u > 0; --u, panel += kPanel, z += stride) {
    decode_step(panel, z, sums);
  }
  TIEDEXPORT_UNROLL(8) for (std::size_t s = 0; s < kSamples; ++s) {
    TIEDEXPORT_UNROLL(4) for (std::size_t v = 0; v < kVectors; ++v) {
      float* out = block.out + s * block.out_stride + v * kLanes;
      if (block.accumulate) sums[s][v] = hn::Add(hn::LoadU(d, out), sums[s][v]);
      hn::StoreU(sums[s][v], d, out);
    }
  }
  to_stage = staging;
}
