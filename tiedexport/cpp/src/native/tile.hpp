// Products of many samples: what the kernels of each instruction set are given, and give.
//
// Both products run on *units* of four bytes: one fp32, or two neighbouring bfloat16 where the CPU
// multiplies those in pairs. A kernel holds a block of sums in registers while units pass by.
#pragma once

#include <cstddef>

#include "native/products.hpp"

namespace tiedexport::internal::native::tile {

/// `count` vectors of samples, cut evenly into groups of at most `largest`.
struct Groups {
  std::size_t count, largest;

  constexpr std::size_t size() const { return (count + largest - 1) / largest; }
  constexpr std::size_t begin(std::size_t group) const { return count * group / size(); }
};

/// Samples [first, first + lanes), transposed: unit u of them goes to out[u * out_stride + lane].
/// Lanes beyond `batch`, and what lies beyond `elements` in the last unit, become zero.
struct PackTask {
  const float* samples;  // [batch, sample_stride]
  std::size_t sample_stride, batch, first, lanes;
  std::size_t element, elements;  // [element, elements) of each sample; `element` begins a unit
  float* out;
  std::size_t out_stride;
};

/// z[i - begin, b] = Σ_k x[b, k] w[i, k] for the rows [begin, end).
struct EncodeTask {
  Matrix w;
  std::size_t begin, end, batch;
  const float* x;  // as `pack` left them, `x_units` of each sample
  std::size_t x_units;
  std::size_t vectors;
  float* z;  // with room for whole blocks of rows
  std::size_t z_stride;
  float* stage;  // [Kernels::encode_stage]; for rows that are widened first
};

/// out[b, k] (+)= Σ_i z[i, b] w[i, k] over the rows [begin, end), for some of the columns.
struct DecodeTask {
  Matrix w;
  std::size_t begin, end;
  const float* z;  // units, the first of row `begin`
  std::size_t z_stride, batch;
  Span columns;
  float* out;  // [batch, w.columns]
  bool accumulate;
  float* stage;  // [units * Kernels::strip + Kernels::aside]
};

/// What one instruction set has.
struct Kernels {
  std::size_t lanes;          // fp32 in a vector
  std::size_t group_vectors;  // vectors of samples that one block of `encode` holds
  std::size_t rows;           // rows of W in that block
  std::size_t panel;          // columns in a block of `decode`
  std::size_t elements;       // weights in a unit
  std::size_t encode_stage;   // units that `encode` stages
  std::size_t strip;          // columns that `decode` stages of a whole tile
  std::size_t aside;          // sums that `decode` makes beside its output
  std::size_t tile_rows;      // in a tile, at most
  std::size_t tile_bytes;     // of W, for each worker, in a tile, at most
  std::size_t padding;        // of rows of z, in fp32

  /// Samples for `encode`: group by group, in each [units][lanes of the group], or as that likes.
  void (*pack)(const PackTask&);
  void (*encode)(const EncodeTask&);
  /// Rows of z from samples of them.
  void (*pack_hidden)(const PackTask&);
  /// Rows of z into units: [rows, stride] to [ceil(rows / elements), stride], or as `decode` likes.
  void (*narrow)(const float* z, std::size_t rows, std::size_t stride, float* units);
  void (*decode)(const DecodeTask&);
};

/// Of W in a tile, where the number of its rows is limit enough.
constexpr std::size_t kAnyBytes = std::size_t{1} << 40;

/// Where bfloat16 are multiplied in pairs, batches of up to this many samples have kernels of their
/// own, whose sums are made in another order; more of them are faster as vectors of samples.
///
/// For AMX that number was calculated, no CPU with it being at hand: for both products of 512
/// weights (1 KiB) with up to 16 samples, two tiles of sums take 32 cycles; the kernels for few
/// samples take 32 a sample, but hide them behind memory, and tiles need copies beside. Those
/// alone, and memory, took 38 ms for W [4096, 16384] on a Zen 4, where the kernels for few samples
/// took 28 for 9 of them and 35 for 16, and vectors 63 for 32, where copies took 46.
constexpr std::size_t kFewSamples = 16;

const Kernels& kernels(Simd simd, Type weights, std::size_t batch);
/// For bfloat16 by AMX; null where this build has none. Only for where `why_no_amx` is null.
const Kernels* amx_kernels();

// The products of products.hpp, by these kernels.
void encode(const Product& product, Context& context, const Kernels& kernels);
void decode(const Product& product, Context& context, const Kernels& kernels);
void pair(const PairProduct& product, Context& context, const Kernels& kernels);

}  // namespace tiedexport::internal::native::tile
