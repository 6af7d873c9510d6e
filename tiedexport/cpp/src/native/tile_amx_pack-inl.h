// How samples, z and rows of W become the tiles of tile_amx-inl.h, which includes this.

/// Elements from `element` on of kSide samples from `first` on, rounded: a tile, zero where it
/// reaches beyond elements or samples.
template <class Tiles>
void round_samples(const PackTask& task, std::size_t element, std::size_t first, std::byte* tile) {
  std::memset(tile, 0, kTileBytes);
  const std::size_t samples = std::min(kSide, task.batch - std::min(first, task.batch));
  for (std::size_t s = 0; s < samples; ++s) {
    narrow(Type::bf16, task.samples + (first + s) * task.sample_stride + element,
           std::min(kDepth, task.elements - element), tile + s * kLineBytes, Tiles::kSimd);
  }
}

/// Tiles B of kSide samples, one behind the other along their elements.
template <class Tiles>
void pack_samples(const PackTask& task) {
  float* out = task.out;
  for (std::size_t element = task.element; element < task.elements; element += kDepth) {
    alignas(64) float units[kSide][kSide];
    round_samples<Tiles>(task, element, task.first, reinterpret_cast<std::byte*>(units));
    for (std::size_t unit = 0; unit < kSide; ++unit) {
      for (std::size_t s = 0; s < kSide; ++s) std::memcpy(out++, &units[s][unit], sizeof(float));
    }
  }
}

/// For each kDepth rows of z, tiles A of samples, one behind the other.
template <class Tiles>
void pack_hidden_tiles(const PackTask& task) {
  float* block = task.out;
  for (std::size_t row = task.element; row < task.elements; row += kDepth) {
    for (std::size_t lane = 0; lane < task.lanes; lane += kSide) {
      round_samples<Tiles>(task, row, task.first + lane,
                           reinterpret_cast<std::byte*>(block + lane * kSide));
    }
    block += kSide * task.out_stride;
  }
}

/// The same from z as `encode_tiles` leaves it, rows of it that do not exist being zero.
template <class Tiles>
void narrow_to_tiles(const float* z, std::size_t rows, std::size_t stride, float* units) {
  for (std::size_t row = 0; row < rows; row += kDepth, units += kSide * stride) {
    const std::size_t count = std::min(kDepth, rows - row);
    for (std::size_t lane = 0; lane < stride; lane += kSide) {
      float samples[kSide][kDepth] = {};
      for (std::size_t r = 0; r < count; ++r) {
        const float* from = z + (row + r) * stride + lane;
        for (std::size_t s = 0; s < kSide; ++s) samples[s][r] = from[s];
      }
      narrow(Type::bf16, &samples[0][0], kSide * kDepth, units + lane * kSide, Tiles::kSimd);
    }
  }
}

constexpr std::size_t kRowsAhead = 16;

/// Pairs of a column each, of two rows.
inline void interleave(const std::byte* upper, const std::byte* lower, std::byte* out) {
  std::uint16_t first[kSide], second[kSide];
  std::uint32_t pairs[kSide];
  std::memcpy(first, upper, sizeof(first));
  std::memcpy(second, lower, sizeof(second));
  for (std::size_t c = 0; c < kSide; ++c) {
    pairs[c] = first[c] | static_cast<std::uint32_t>(second[c]) << 16;
  }
  std::memcpy(out, pairs, sizeof(pairs));
}

/// Two rows, the second of which need not exist, into tiles that lie `out_stride` apart.
inline void stage_pair(const std::byte* w, std::size_t stride, std::size_t rows,
                       std::size_t columns, std::byte* out, std::size_t out_stride) {
  for (; columns >= kSide && rows > 1; columns -= kSide, w += kSide * 2, out += out_stride) {
    interleave(w, w + stride, out);
  }
  for (; columns > 0; w += kSide * 2, out += out_stride) {
    const std::size_t count = std::min(columns, kSide);
    std::byte edge[2][kSide * 2] = {};
    for (std::size_t r = 0; r < rows; ++r) std::memcpy(edge[r], w + r * stride, count * 2);
    interleave(edge[0], edge[1], out);
    columns -= count;
  }
}

/// Tiles B of all rows of the tile, [ceil(columns / kSide)][steps], zero where they reach beyond W.
inline void stage_strip(const DecodeTask& task, Span columns, std::size_t steps, std::byte* out) {
  const std::size_t stride = task.w.columns * 2, out_stride = steps * kTileBytes;
  const auto* w = static_cast<const std::byte*>(task.w.data) + columns.begin * 2;
  for (std::size_t line = 0; line < steps * kSide; ++line, out += kLineBytes) {
    const std::size_t row = std::min(task.begin + 2 * line, task.end);
    for (std::size_t r = row + kRowsAhead; r < std::min(row + kRowsAhead + 2, task.end); ++r) {
      for (std::size_t k = 0; k < columns.end - columns.begin; k += kLineBytes / 2) {
        __builtin_prefetch(w + r * stride + k * 2, 0, 3);
      }
    }
    stage_pair(w + row * stride, stride, std::min<std::size_t>(task.end - row, 2),
               columns.end - columns.begin, out, out_stride);
  }
}
