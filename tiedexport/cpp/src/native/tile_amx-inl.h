// Products of bfloat16 by tiles: 16 rows of 64 bytes in a register. A tile A of 32 bfloat16 a row,
// and a tile B of 16 pairs a row, add to a tile C of 16 sums a row:
//   C[m, n] += Σ_k A[m, 2k] B[k, 2n] + A[m, 2k + 1] B[k, 2n + 1]
// A for `encode` are rows of W as they are stored, B its samples, packed once a call; for `decode`
// A are samples of z, and B pairs of rows of W, interleaved once a strip for the whole batch.
//
// Included inside a namespace, without includes of its own, for each type `Tiles` that has
//   a constructor and a destructor, between which the thread has tiles, all of them whole;
//   zero<tile>(), load<tile>(address, stride), store<tile>(address, stride), strides in bytes;
//   multiply_add<c, a, b>();
//   kSimd, for all that is not multiplied.

constexpr std::size_t kSide = 16;          // rows of a tile; sums or pairs in each
constexpr std::size_t kDepth = 2 * kSide;  // bfloat16 in each
constexpr std::size_t kLineBytes = 64, kTileBytes = kSide * kLineBytes;
/// Sums are made in blocks of two by two tiles, for which two of A and two of B are loaded.
constexpr std::size_t kBlock = 2 * kSide;
constexpr std::size_t kBlockSteps = 32;  // tiles of A side by side: with 128 samples 256 KiB of B
constexpr std::size_t kStrip = 128;      // columns, in tiles of 24 KiB and less: 192 KiB of L2
constexpr std::size_t kAmxRows = 768;    // as many as without AMX; sums are read and written once

#include "native/tile_amx_pack-inl.h"

/// Rows of A are `a_stride` apart, tiles of it `a_step` along k, and the second row of tiles lies
/// `a_next` behind the first. Tiles of B follow one another along k; the second column of them lies
/// `b_next` behind the first. What comes next of W is called from memory, `ahead_stride` from row
/// to row. All in bytes, but for `sums_stride`.
struct Block {
  const std::byte* a;
  std::size_t a_stride, a_step, a_next;
  const std::byte* b;
  std::size_t b_next, steps;
  const std::byte* ahead;  // or null
  std::size_t ahead_stride;
  float* sums;
  std::size_t sums_stride;
  bool accumulate;
};

template <int kTile, class Tiles>
inline void begin_sums(Tiles& tiles, const float* sums, std::size_t stride, bool accumulate) {
  if (accumulate) {
    tiles.template load<kTile>(sums, stride * sizeof(float));
  } else {
    tiles.template zero<kTile>();
  }
}

/// Tiles 0 to 3 are sums, 4 and 5 are of A, 6 and 7 of B.
template <class Tiles, bool kDown, bool kAcross>
void multiply(Tiles& tiles, const Block block) {
  const std::size_t stride = block.sums_stride;
  float* const below = block.sums + kSide * stride;
  begin_sums<0>(tiles, block.sums, stride, block.accumulate);
  if (kAcross) begin_sums<1>(tiles, block.sums + kSide, stride, block.accumulate);
  if (kDown) begin_sums<2>(tiles, below, stride, block.accumulate);
  if (kDown && kAcross) begin_sums<3>(tiles, below + kSide, stride, block.accumulate);
  const std::byte *a = block.a, *b = block.b, *ahead = block.ahead;
  for (std::size_t step = 0; step < block.steps; ++step, a += block.a_step, b += kTileBytes) {
    if (ahead != nullptr) {
      for (std::size_t row = 0; row < kBlock; ++row) {
        __builtin_prefetch(ahead + row * block.ahead_stride + step * kLineBytes, 0, 2);
      }
    }
    tiles.template load<4>(a, block.a_stride);
    tiles.template load<6>(b, kLineBytes);
    tiles.template multiply_add<0, 4, 6>();
    if (kAcross) tiles.template load<7>(b + block.b_next, kLineBytes);
    if (kAcross) tiles.template multiply_add<1, 4, 7>();
    if (kDown) tiles.template load<5>(a + block.a_next, block.a_stride);
    if (kDown) tiles.template multiply_add<2, 5, 6>();
    if (kDown && kAcross) tiles.template multiply_add<3, 5, 7>();
  }
  tiles.template store<0>(block.sums, stride * sizeof(float));
  if (kAcross) tiles.template store<1>(block.sums + kSide, stride * sizeof(float));
  if (kDown) tiles.template store<2>(below, stride * sizeof(float));
  if (kDown && kAcross) tiles.template store<3>(below + kSide, stride * sizeof(float));
}

/// As many rows and columns of tiles as `down` and `across` sums need.
template <class Tiles>
void multiply_some(Tiles& tiles, const Block& block, std::size_t down, std::size_t across) {
  if (down > kSide && across > kSide) return multiply<Tiles, true, true>(tiles, block);
  if (down > kSide) return multiply<Tiles, true, false>(tiles, block);
  if (across > kSide) return multiply<Tiles, false, true>(tiles, block);
  multiply<Tiles, false, false>(tiles, block);
}

/// Rows from `row` on, `steps` tiles of them from tile `step` on, with all samples. Rows that are
/// loaded more than once are copied, since a power of two from row to row would keep them out of
/// caches; so are those where tiles would reach beyond W, filled up with zeros.
template <class Tiles>
void encode_rows(Tiles& tiles, const EncodeTask& task, std::size_t row, std::size_t step,
                 std::size_t steps) {
  const std::size_t rows = std::min(kBlock, task.end - row), stride = task.w.columns * 2;
  const std::size_t elements = std::min(steps * kDepth, task.w.columns - step * kDepth);
  const auto* w = static_cast<const std::byte*>(task.w.data) + row * stride + step * kLineBytes;
  Block block{};
  block.a = w;
  block.a_stride = stride;
  const bool whole = rows == kBlock && elements == steps * kDepth;
  if (!whole || task.vectors > 2) {
    auto* stage = reinterpret_cast<std::byte*>(task.stage);
    block.a = stage;
    block.a_stride = steps * kLineBytes;
    if (!whole) std::memset(stage, 0, kBlock * block.a_stride);
    for (std::size_t r = 0; r < rows; ++r) {
      std::memcpy(stage + r * block.a_stride, w + r * stride, elements * 2);
    }
  }
  if (row + 2 * kBlock <= task.w.rows) {
    block.ahead = w + kBlock * stride;
    block.ahead_stride = stride;
  }
  block.a_step = kLineBytes;
  block.a_next = kSide * block.a_stride;
  block.b_next = task.x_units * kLineBytes;
  block.steps = steps;
  block.sums_stride = task.z_stride;
  block.accumulate = step > 0;
  for (std::size_t v = 0; v < task.vectors; v += 2, block.ahead = nullptr) {
    block.b = reinterpret_cast<const std::byte*>(task.x) + v * block.b_next + step * kTileBytes;
    block.sums = task.z + (row - task.begin) * task.z_stride + v * kSide;
    multiply_some(tiles, block, rows, (task.vectors - v) * kSide);
  }
}

template <class Tiles>
void encode_tiles(const EncodeTask& task) {
  Tiles tiles;
  const std::size_t whole_steps = task.w.columns / kDepth;
  const std::size_t most_steps = kBlockSteps / std::max<std::size_t>(task.vectors / 8, 1);
  for (std::size_t step = 0; step < whole_steps; step += most_steps) {
    for (std::size_t row = task.begin; row < task.end; row += kBlock) {
      encode_rows(tiles, task, row, step, std::min(most_steps, whole_steps - step));
    }
  }
  if (task.w.columns % kDepth == 0) return;
  for (std::size_t row = task.begin; row < task.end; row += kBlock) {
    encode_rows(tiles, task, row, whole_steps, 1);  // W ends within this tile
  }
}

/// Where a block would reach beyond samples or columns, its sums are made aside.
template <class Tiles>
void decode_block(Tiles& tiles, Block block, std::size_t samples, std::size_t columns,
                  float* aside) {
  if (samples % kSide == 0 && columns % kSide == 0) {
    return multiply_some(tiles, block, samples, columns);
  }
  float* out = block.sums;
  const std::size_t stride = block.sums_stride;
  block.sums = aside;
  block.sums_stride = kBlock;
  std::fill_n(aside, kBlock * kBlock, 0.0F);
  for (std::size_t s = 0; s < samples && block.accumulate; ++s) {
    std::copy_n(out + s * stride, columns, aside + s * kBlock);
  }
  multiply_some(tiles, block, samples, columns);
  for (std::size_t s = 0; s < samples; ++s) {
    std::copy_n(aside + s * kBlock, columns, out + s * stride);
  }
}

template <class Tiles>
void decode_tiles(const DecodeTask& task) {
  Tiles tiles;
  Block block{};
  block.steps = (task.end - task.begin + kDepth - 1) / kDepth;
  block.a_stride = kLineBytes;
  block.a_step = task.z_stride * kLineBytes;
  block.a_next = kTileBytes;
  block.b_next = block.steps * kTileBytes;
  block.sums_stride = task.w.columns;
  block.accumulate = task.accumulate;
  auto* strip = reinterpret_cast<std::byte*>(task.stage);
  float* aside = task.stage + block.steps * kSide * kStrip;
  for (std::size_t k = task.columns.begin; k < task.columns.end; k += kStrip) {
    const Span columns{k, std::min(k + kStrip, task.columns.end)};
    stage_strip(task, columns, block.steps, strip);
    block.b = strip;
    for (std::size_t column = k; column < columns.end; column += kBlock) {
      for (std::size_t b = 0; b < task.batch; b += kBlock) {
        block.a = reinterpret_cast<const std::byte*>(task.z + b * kSide);
        block.sums = task.out + b * task.w.columns + column;
        decode_block(tiles, block, std::min(kBlock, task.batch - b),
                     std::min(kBlock, columns.end - column), aside);
      }
      block.b += 2 * block.b_next;
    }
  }
}

template <class Tiles>
const Kernels& tile_kernels() {
  static constexpr Kernels kKernels = {kSide,
                                       1,
                                       kBlock,
                                       kBlock,
                                       2,
                                       kBlock * kBlockSteps * kSide,
                                       kStrip,
                                       kBlock * kBlock,
                                       kAmxRows,
                                       kAnyBytes,
                                       kSide,
                                       pack_samples<Tiles>,
                                       encode_tiles<Tiles>,
                                       pack_hidden_tiles<Tiles>,
                                       narrow_to_tiles<Tiles>,
                                       decode_tiles<Tiles>};
  return kKernels;
}
