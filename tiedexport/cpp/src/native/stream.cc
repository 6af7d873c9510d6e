// Products of a few samples, split over threads: each reads its rows of W once.
#include "native/stream.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace tiedexport::internal::native::stream {
namespace {

constexpr std::size_t kPanelBytes = 16 << 10;  // half of L1, where W passes through as well
constexpr std::size_t kTileBytes = 256 << 10;  // rows that both products of a pair find in L2
constexpr std::size_t kCacheBytes = 8 << 20;   // a share of L3
constexpr std::size_t kLittle = 16 << 10;      // fp32 that the caller sums and writes alone
constexpr std::size_t kLine = 16;              // fp32 in a line of cache, and in the widest vector

constexpr std::size_t rounded_up(std::size_t count, std::size_t grain) {
  return (count + grain - 1) / grain * grain;
}

/// A batch as blocks of samples of one size, the last one filled up with zeros.
struct Batch {
  std::size_t count, block, blocks, lanes, width;

  Batch(std::size_t samples, const Kernels& kernels) : count(samples), lanes(kernels.lanes) {
    const std::size_t fewest = (samples + kernels.block(samples) - 1) / kernels.block(samples);
    block = kernels.block((samples + fewest - 1) / fewest);
    blocks = (samples + block - 1) / block;
    width = kPanelBytes / sizeof(float) / block / kLine * kLine;
  }
  std::size_t first(std::size_t b) const { return b * block; }
  std::size_t samples_in(std::size_t b) const { return std::min(block, count - first(b)); }
  /// fp32 that one block of so many columns takes.
  std::size_t floats(std::size_t columns) const { return rounded_up(columns, kLine) * block; }
  Panels panels(float* all, std::size_t columns, std::size_t b) const {
    return {all + b * floats(columns), block, width};
  }
};

bool in_cache(const Matrix& w) { return w.rows * w.columns * size_of(w.type) <= kCacheBytes; }

/// What is worth being called ahead. W in cache comes fast enough; of one or two samples a product
/// alone runs along whole rows, which the CPU foresees, where two products leave memory idle.
Ahead ahead(const Matrix& w, const Batch& batch, bool both_products) {
  if (in_cache(w)) return Ahead::cached;
  return both_products || batch.block > 2 ? Ahead::next : Ahead::nothing;
}

/// Samples [batch, columns] side by side.
float* packed(const float* samples, std::size_t columns, const Batch& batch, Scratch& scratch) {
  float* all = scratch.take_array<float>(batch.floats(columns) * batch.blocks);
  if (batch.count == 1) {
    std::fill(std::copy_n(samples, columns, all), all + batch.floats(columns), 0.0F);
    return all;
  }
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    float* at = all + b * batch.floats(columns);
    for (std::size_t c = 0; c < columns; c += batch.lanes) {
      const std::size_t here = std::min(batch.lanes, columns - c);
      for (std::size_t n = 0; n < batch.block; ++n, at += batch.lanes) {
        if (here < batch.lanes || n >= batch.samples_in(b)) std::fill_n(at, batch.lanes, 0.0F);
        if (n >= batch.samples_in(b)) continue;
        std::memcpy(at, samples + (batch.first(b) + n) * columns + c, here * sizeof(float));
      }
    }
  }
  return all;
}

const void* element(const Matrix& w, std::size_t row, std::size_t column) {
  return static_cast<const std::byte*>(w.data) + (row * w.columns + column) * size_of(w.type);
}

void add(const float* values, std::size_t count, float* sums) {
  for (std::size_t i = 0; i < count; ++i) sums[i] += values[i];
}

/// z[i, n] of rows [begin, begin + rows) → f(z + bias).
void finish_hidden(float* z, std::size_t rows, std::size_t samples, const float* bias,
                   Activation activation, Simd simd) {
  if (bias != nullptr && samples == 1) {
    add(bias, rows, z);
  } else if (bias != nullptr) {
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t n = 0; n < samples; ++n) z[i * samples + n] += bias[i];
    }
  }
  if (activation != Activation::none) activate(activation, z, rows * samples, simd);
}

/// Partial sums of each thread, added in the order of threads, and the bias; columns [begin, end).
struct Result {
  const Batch& batch;
  std::size_t columns;  // that the panels hold, from column `origin` of the output
  std::size_t origin;
  float* const* partial;
  int partials;
  const float* bias;
  Activation activation;
  float* out;
  std::size_t out_stride;
  Simd simd;

  /// `begin` is a multiple of lanes.
  void write(std::size_t b, std::size_t n, std::size_t begin, std::size_t end) const {
    float* row = out + (batch.first(b) + n) * out_stride + origin;
    const float* offset = bias == nullptr ? nullptr : bias + origin;
    const std::size_t at = b * batch.floats(columns) + n * batch.lanes;
    const std::size_t together = batch.block == 1 ? end - begin : batch.lanes;
    for (std::size_t c = begin; c < end; c += together) {
      const std::size_t count = std::min(end - c, together), from = at + c * batch.block;
      std::copy_n(partial[0] + from, count, row + c);
      for (int t = 1; t < partials; ++t) add(partial[t] + from, count, row + c);
      if (offset != nullptr) add(offset + c, count, row + c);
    }
    if (activation != Activation::none) activate(activation, row + begin, end - begin, simd);
  }
  void write_all(std::size_t begin, std::size_t end) const {
    for (std::size_t b = 0; b < batch.blocks; ++b) {
      for (std::size_t n = 0; n < batch.samples_in(b); ++n) write(b, n, begin, end);
    }
  }
};

/// All columns of a result, by the caller alone where others would take longer to begin.
void write(const Result& result, Pool& pool) {
  if (result.columns * result.batch.count <= kLittle) return result.write_all(0, result.columns);
  pool.run([&](int index) {
    const Span span = share(result.columns, kLine, index, pool.size());
    result.write_all(span.begin, span.end);
  });
}

/// z[i, n] of rows [begin, begin + rows) from in[n, i]; where it lies, if it lies so.
const float* hidden(const Product& product, const Batch& batch, std::size_t b, std::size_t begin,
                    std::size_t rows, float* z) {
  if (batch.count == 1) return product.in + begin;
  for (std::size_t n = 0; n < batch.block; ++n) {
    const float* in = product.in + (batch.first(b) + n) * product.w.rows + begin;
    for (std::size_t r = 0; r < rows; ++r)
      z[r * batch.block + n] = n < batch.samples_in(b) ? in[r] : 0.0F;
  }
  return z;
}

/// Zeroed sums of all columns, for each thread.
float** sums_of_threads(const Batch& batch, std::size_t columns, Context& context) {
  const auto threads = static_cast<std::size_t>(context.pool.size());
  float** sums = context.scratch.take_array<float*>(threads);
  for (std::size_t t = 0; t < threads; ++t)
    sums[t] = context.scratch.take_array<float>(batch.floats(columns) * batch.blocks);
  return sums;
}

/// Rows that a pair takes at once: what fits L2, in whole blocks of the kernel; enough of them to
/// outweigh that all samples and sums pass by for each.
std::size_t tile_rows(const Matrix& w, const Batch& batch, const Kernels& kernel) {
  const std::size_t grain = kernel.rows(batch.block), row_bytes = w.columns * size_of(w.type);
  const std::size_t fitting = kTileBytes / row_bytes / grain * grain;
  return std::clamp(fitting, batch.block > 4 ? 4 * grain : grain, kMostRows / grain * grain);
}

}  // namespace

// What threads are told lies in one object, by value: on the caller's stack it would be spread over
// lines that each take their time from core to core.

void encode(const Product& product, Context& context) {
  const Kernels kernel = kernels(context.simd);
  const Batch batch(product.batch, kernel);
  const Matrix w = product.w;
  float* x = packed(product.in, w.columns, batch, context.scratch);
  const int threads = context.pool.size();
  context.pool.run([=, simd = context.simd](int index) {
    const Span span = share(w.rows, 8, index, threads);
    alignas(64) float block[kMostRows * 8];
    for (std::size_t i = span.begin; i < span.end; i += kMostRows) {
      const std::size_t rows = std::min(kMostRows, span.end - i);
      for (std::size_t b = 0; b < batch.blocks; ++b) {
        float* z = batch.count == 1 ? product.out + i : block;
        kernel.dots({element(w, i, 0), w.type, rows, w.columns, w.columns, ahead(w, batch, false)},
                    batch.panels(x, w.columns, b), z);
        if (batch.count == 1) continue;
        finish_hidden(z, rows, batch.block, product.bias == nullptr ? nullptr : product.bias + i,
                      product.activation, simd);
        for (std::size_t n = 0; n < batch.samples_in(b); ++n) {
          float* out = product.out + (batch.first(b) + n) * w.rows + i;
          for (std::size_t r = 0; r < rows; ++r) out[r] = z[r * batch.block + n];
        }
      }
    }
    if (batch.count == 1)
      finish_hidden(product.out + span.begin, span.end - span.begin, 1,
                    product.bias == nullptr ? nullptr : product.bias + span.begin,
                    product.activation, simd);
  });
}

/// By rows: the core whose cache has them from encoding takes them again, the last ones first.
void decode_in_cache(const Product& product, Context& context) {
  const Kernels kernel = kernels(context.simd);
  const Batch batch(product.batch, kernel);
  const Matrix w = product.w;
  const int threads = context.pool.size();
  float** sums = sums_of_threads(batch, w.columns, context);
  context.pool.run([=](int index) {
    const Span span = share(w.rows, 8, index, threads);
    std::fill_n(sums[index], batch.floats(w.columns) * batch.blocks, 0.0F);
    alignas(64) float z[kMostRows * 8];
    const std::size_t tiles = (span.end - span.begin + kMostRows - 1) / kMostRows;
    for (std::size_t t = tiles; t-- > 0;) {
      const std::size_t i = span.begin + t * kMostRows, rows = std::min(kMostRows, span.end - i);
      for (std::size_t b = 0; b < batch.blocks; ++b) {
        kernel.add_rows({element(w, i, 0), w.type, rows, w.columns, w.columns, Ahead::cached},
                        hidden(product, batch, b, i, rows, z),
                        batch.panels(sums[index], w.columns, b));
      }
    }
  });
  write({batch, w.columns, 0, sums, threads, product.bias, product.activation, product.out,
         w.columns, context.simd},
        context.pool);
}

void decode(const Product& product, Context& context) {
  if (in_cache(product.w)) return decode_in_cache(product, context);
  const Kernels kernel = kernels(context.simd);
  const Batch batch(product.batch, kernel);
  const Matrix w = product.w;
  const int threads = context.pool.size();
  float** all = sums_of_threads(batch, w.columns, context);
  context.pool.run([=, simd = context.simd](int index) {
    const Span span = share(w.columns, kLine, index, threads);
    const std::size_t columns = span.end - span.begin;
    if (columns == 0) return;
    float* sums = all[index];
    std::fill_n(sums, batch.floats(columns) * batch.blocks, 0.0F);
    alignas(64) float z[kMostRows * 8];
    for (std::size_t i = 0; i < w.rows; i += kMostRows) {
      const std::size_t rows = std::min(kMostRows, w.rows - i);
      for (std::size_t b = 0; b < batch.blocks; ++b) {
        kernel.add_rows(
            {element(w, i, span.begin), w.type, rows, columns, w.columns, ahead(w, batch, false)},
            hidden(product, batch, b, i, rows, z), batch.panels(sums, columns, b));
      }
    }
    Result{batch,       columns,   span.begin, &sums, 1, product.bias, product.activation,
           product.out, w.columns, simd}
        .write_all(0, columns);
  });
}

void pair(const PairProduct& product, Context& context) {
  const Kernels kernel = kernels(context.simd);
  const Batch batch(product.batch, kernel);
  const Matrix w = product.w;
  const int threads = context.pool.size();
  float* x = packed(product.in, w.columns, batch, context.scratch);
  float** sums = sums_of_threads(batch, w.columns, context);
  const Ahead calls = ahead(w, batch, true);
  const std::size_t tile = tile_rows(w, batch, kernel);
  context.pool.run([=, simd = context.simd](int index) {
    const Span span = share(w.rows, 8, index, threads);
    std::fill_n(sums[index], batch.floats(w.columns) * batch.blocks, 0.0F);
    alignas(64) float z[kMostRows * 8];
    for (std::size_t i = span.begin; i < span.end; i += tile) {
      const std::size_t rows = std::min(tile, span.end - i);
      Rows here{element(w, i, 0), w.type, rows, w.columns, w.columns, calls};
      for (std::size_t b = 0; b < batch.blocks; ++b) {
        kernel.dots(here, batch.panels(x, w.columns, b), z);
        finish_hidden(z, rows, batch.block,
                      product.hidden_bias == nullptr ? nullptr : product.hidden_bias + i,
                      product.hidden, simd);
        if (calls == Ahead::next) here.ahead = Ahead::behind;
        kernel.add_rows(here, z, batch.panels(sums[index], w.columns, b));
      }
    }
  });
  write({batch, w.columns, 0, sums, threads, product.out_bias, product.activation, product.out,
         w.columns, context.simd},
        context.pool);
}

}  // namespace tiedexport::internal::native::stream
