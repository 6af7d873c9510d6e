// Many samples: W passes in tiles of rows, and each tile serves both of its products while it is
// in cache.
//
// Every sum is made in one order, along k or i, whatever the thread and the samples beside it, so
// results depend on neither; but that order is another for a few samples (kFewSamples).
#include "native/tile.hpp"

#include <algorithm>
#include <cstddef>

namespace tiedexport::internal::native::tile {
namespace {

/// Samples that pass over W together, fewer where a packed sample is long: half of an L3 at most.
constexpr std::size_t kMostSamples = 256, kFewestSamples = 64;
constexpr std::size_t kPackedBytes = std::size_t{16} << 20;
/// Keeps the same sample of neighbouring rows of z out of the same set of the cache.
constexpr std::size_t kPadding = 16;

constexpr std::size_t rounded_up(std::size_t count, std::size_t grain) {
  return (count + grain - 1) / grain * grain;
}

/// How many of `batch` samples pass over W together.
std::size_t samples_together(const Matrix& w, std::size_t batch) {
  const std::size_t fitting = kPackedBytes / sizeof(float) / w.columns;
  return std::min(
      batch, std::clamp(fitting, kFewestSamples, kMostSamples) / kFewestSamples * kFewestSamples);
}

const Kernels& kernels_for(const Matrix& w, std::size_t batch, const Context& context) {
  return kernels(context.simd, w.type, samples_together(w, batch));
}

/// A product, or a pair of them, on as many samples as pass over W together.
class Sweep {
 public:
  Sweep(const Matrix& w, std::size_t most_samples, Context& context, const Kernels& kernels)
      : w_(w),
        pool_(context.pool),
        simd_(context.simd),
        scratch_(context.scratch),
        kernels_(kernels),
        workers_(static_cast<std::size_t>(pool_.size())),
        x_units_(rounded_up((w.columns + kernels_.elements - 1) / kernels_.elements, kPadding)),
        z_stride_(rounded_up(most_samples, kernels_.lanes) + kernels_.padding) {
    // A whole number of blocks.
    const std::size_t fitting = kernels_.tile_bytes / (w.columns * size_of(w.type)) * workers_;
    const std::size_t rows = std::min({fitting, kernels_.tile_rows, w.rows + kernels_.rows - 1});
    tile_rows_ = std::max(rows / kernels_.rows, std::size_t{1}) * kernels_.rows;
    tile_units_ = (tile_rows_ + kernels_.elements - 1) / kernels_.elements;
  }

  void take_for_encode() {
    x_ = scratch_.take_array<float>(x_units_ * (z_stride_ - kernels_.padding));
    stages_ = scratch_.take_array<float>(workers_ * kernels_.encode_stage);
    z_ = scratch_.take_array<float>(tile_rows_ * z_stride_);
    std::fill_n(z_, tile_rows_ * z_stride_, 0.0F);
  }

  void take_for_decode() {
    units_ = scratch_.take_array<float>(tile_units_ * z_stride_);
    std::fill_n(units_, tile_units_ * z_stride_, 0.0F);
    strip_units_ = tile_units_ * kernels_.strip + kernels_.aside;
    strips_ = scratch_.take_array<float>(workers_ * strip_units_);
  }

  void use(std::size_t batch) {
    batch_ = batch;
    vectors_ = (batch + kernels_.lanes - 1) / kernels_.lanes;
  }

  /// Packs [batch, columns] for encode_tile.
  void load_samples(const float* in) {
    pool_.run([&](int worker) {
      const Groups groups{vectors_, kernels_.group_vectors};
      const Span units = share(x_units_, kPadding, worker, pool_.size());
      if (units.begin == units.end) return;
      for (std::size_t g = 0; g < groups.size(); ++g) {
        const std::size_t first = groups.begin(g) * kernels_.lanes;
        const std::size_t lanes = groups.begin(g + 1) * kernels_.lanes - first;
        kernels_.pack({in, w_.columns, batch_, first, lanes, units.begin * kernels_.elements,
                       std::min(units.end * kernels_.elements, w_.columns),
                       x_ + first * x_units_ + units.begin * lanes, lanes});
      }
    });
  }

  std::size_t tile_rows() const { return tile_rows_; }

  /// z of the rows [begin, end), activated; also as units, where a product with them follows.
  void encode_tile(std::size_t begin, std::size_t end, const float* bias, Activation activation,
                   bool decode_follows) {
    pool_.run([&](int worker) {
      const Span part = share(end - begin, kernels_.rows, worker, pool_.size());
      if (part.begin == part.end) return;
      float* z = z_ + part.begin * z_stride_;
      kernels_.encode({w_, begin + part.begin, begin + part.end, batch_, x_, x_units_, vectors_, z,
                       z_stride_,
                       stages_ + static_cast<std::size_t>(worker) * kernels_.encode_stage});
      const std::size_t rows = part.end - part.begin;
      for (std::size_t row = 0; row < rows && bias != nullptr; ++row) {
        const float added = bias[begin + part.begin + row];
        for (std::size_t b = 0; b < z_stride_; ++b) z[row * z_stride_ + b] += added;
      }
      activate(activation, z, rows * z_stride_, simd_);
      if (decode_follows && kernels_.elements > 1) {
        kernels_.narrow(z, rows, z_stride_, units_ + part.begin / kernels_.elements * z_stride_);
      }
    });
  }

  /// The tile's z into out[b, begin..end).
  void store_hidden(std::size_t begin, std::size_t end, float* out) {
    pool_.run([&](int worker) {
      const Span samples = share(batch_, kPadding, worker, pool_.size());
      for (std::size_t from = begin; from < end; from += kPadding) {
        const std::size_t until = std::min(from + kPadding, end);
        for (std::size_t b = samples.begin; b < samples.end; ++b) {
          const float* z = z_ + (from - begin) * z_stride_ + b;
          float* sample = out + b * w_.rows;
          for (std::size_t i = from; i < until; ++i, z += z_stride_) sample[i] = *z;
        }
      }
    });
  }

  /// The tile's units from in[b, begin..end).
  void load_hidden(std::size_t begin, std::size_t end, const float* in) {
    kernels_.pack_hidden(
        {in, w_.rows, batch_, 0, vectors_ * kernels_.lanes, begin, end, units_, z_stride_});
  }

  /// Adds the rows [begin, end) to the output; after the last of them, bias and activation.
  void decode_tile(std::size_t begin, std::size_t end, bool from_hidden, const float* bias,
                   Activation activation, float* out) {
    const float* z = from_hidden && kernels_.elements == 1 ? z_ : units_;
    pool_.run([&](int worker) {
      const Span columns = share(w_.columns, kernels_.panel, worker, pool_.size());
      if (columns.begin == columns.end) return;
      kernels_.decode({w_, begin, end, z, z_stride_, batch_, columns, out, begin > 0,
                       strips_ + static_cast<std::size_t>(worker) * strip_units_});
      if (end == w_.rows) finish(columns, bias, activation, out);
    });
  }

 private:
  void finish(Span columns, const float* bias, Activation activation, float* out) const {
    const std::size_t count = columns.end - columns.begin;
    for (std::size_t b = 0; b < batch_; ++b) {
      float* values = out + b * w_.columns + columns.begin;
      for (std::size_t k = 0; k < count && bias != nullptr; ++k)
        values[k] += bias[columns.begin + k];
      activate(activation, values, count, simd_);
    }
  }

  const Matrix w_;
  Pool& pool_;
  const Simd simd_;
  Scratch& scratch_;
  const Kernels& kernels_;
  const std::size_t workers_, x_units_, z_stride_;
  std::size_t tile_rows_ = 0, tile_units_ = 0, strip_units_ = 0, batch_ = 0, vectors_ = 0;
  float *x_ = nullptr, *stages_ = nullptr, *z_ = nullptr, *units_ = nullptr, *strips_ = nullptr;
};

}  // namespace

void encode(const Product& product, Context& context, const Kernels& kernels) {
  const Matrix& w = product.w;
  const std::size_t most = samples_together(w, product.batch);
  Sweep sweep(w, most, context, kernels);
  sweep.take_for_encode();
  for (std::size_t first = 0; first < product.batch; first += most) {
    sweep.use(std::min(most, product.batch - first));
    sweep.load_samples(product.in + first * w.columns);
    for (std::size_t row = 0; row < w.rows; row += sweep.tile_rows()) {
      const std::size_t end = std::min(row + sweep.tile_rows(), w.rows);
      sweep.encode_tile(row, end, product.bias, product.activation, false);
      sweep.store_hidden(row, end, product.out + first * w.rows);
    }
  }
}

void decode(const Product& product, Context& context, const Kernels& kernels) {
  const Matrix& w = product.w;
  const std::size_t most = samples_together(w, product.batch);
  Sweep sweep(w, most, context, kernels);
  sweep.take_for_decode();
  for (std::size_t first = 0; first < product.batch; first += most) {
    sweep.use(std::min(most, product.batch - first));
    for (std::size_t row = 0; row < w.rows; row += sweep.tile_rows()) {
      const std::size_t end = std::min(row + sweep.tile_rows(), w.rows);
      sweep.load_hidden(row, end, product.in + first * w.rows);
      sweep.decode_tile(row, end, false, product.bias, product.activation,
                        product.out + first * w.columns);
    }
  }
}

void pair(const PairProduct& product, Context& context, const Kernels& kernels) {
  const Matrix& w = product.w;
  const std::size_t most = samples_together(w, product.batch);
  Sweep sweep(w, most, context, kernels);
  sweep.take_for_encode();
  sweep.take_for_decode();
  for (std::size_t first = 0; first < product.batch; first += most) {
    sweep.use(std::min(most, product.batch - first));
    sweep.load_samples(product.in + first * w.columns);
    for (std::size_t row = 0; row < w.rows; row += sweep.tile_rows()) {
      const std::size_t end = std::min(row + sweep.tile_rows(), w.rows);
      sweep.encode_tile(row, end, product.hidden_bias, product.hidden, true);
      sweep.decode_tile(row, end, true, product.out_bias, product.activation,
                        product.out + first * w.columns);
    }
  }
}

void encode(const Product& product, Context& context) {
  encode(product, context, kernels_for(product.w, product.batch, context));
}

void decode(const Product& product, Context& context) {
  decode(product, context, kernels_for(product.w, product.batch, context));
}

void pair(const PairProduct& product, Context& context) {
  pair(product, context, kernels_for(product.w, product.batch, context));
}

}  // namespace tiedexport::internal::native::tile
