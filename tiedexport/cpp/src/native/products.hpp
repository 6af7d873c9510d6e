// Products with one stored, row-major matrix in both directions, and in one sweep of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "manifest.hpp"
#include "native/pool.hpp"
#include "native/scratch.hpp"

namespace tiedexport::internal::native {

enum class Activation : std::uint8_t { none, relu, gelu, tanh, sigmoid };

/// Instruction sets, weakest first; `best_simd` asks the CPU. Each is compiled by Highway, but for
/// the tiles of AMX, beside which amx_bf16 is avx512_bf16.
enum class Simd : std::uint8_t { scalar, sse4, avx2, avx512, avx512_bf16, amx_bf16, neon };
constexpr Simd kEverySimd[] = {Simd::scalar,      Simd::sse4,     Simd::avx2, Simd::avx512,
                               Simd::avx512_bf16, Simd::amx_bf16, Simd::neon};
/// Whether many samples of bfloat16 are rounded to it, and multiplied in pairs.
constexpr bool multiplies_pairs(Simd simd) {
  return simd == Simd::avx512_bf16 || simd == Simd::amx_bf16;
}
/// The strongest for weights of that type.
Simd best_simd(Type weights);
bool simd_runs_here(Simd simd);
const char* name_of(Simd simd);

struct Context {
  Simd simd;
  Pool& pool;
  Scratch& scratch;
};

/// W as it is stored: [rows, columns] row-major in `type`; rows are latent units, columns features.
struct Matrix {
  const void* data;
  Type type;
  std::size_t rows, columns;
};

/// A product on `batch` samples, each a row of fp32. Bias may be null.
struct Product {
  Matrix w;
  std::size_t batch;
  const float* in;
  const float* bias;
  Activation activation;
  float* out;
};

/// out[b, i] = f(Σ_k in[b, k] w[i, k] + bias[i]); in [batch, columns], out [batch, rows].
void encode(const Product& product, Context& context);
/// out[b, k] = f(Σ_i in[b, i] w[i, k] + bias[k]); in [batch, rows], out [batch, columns].
void decode(const Product& product, Context& context);

/// Both at once: z = f(x Wᵀ + b), out = g(z W + c), W read once; in and out [batch, columns].
struct PairProduct {
  Matrix w;
  std::size_t batch;
  const float* in;
  const float* hidden_bias;  // [rows] or null
  Activation hidden;
  const float* out_bias;  // [columns] or null
  Activation activation;
  float* out;
};
void pair(const PairProduct& product, Context& context);

/// values[i] = f(values[i]), NaN and infinities as torch has them.
void activate(Activation activation, float* values, std::size_t count, Simd simd);
/// Widen `count` stored values to fp32, and round fp32 to nearest even into a stored type.
void widen(Type from, const void* values, std::size_t count, float* out, Simd simd);
void narrow(Type to, const float* values, std::size_t count, void* out, Simd simd);

// The two ways that encode, decode and pair choose between, by batch, type and instruction set.

/// A few samples, bound by memory: each row of W is widened in registers and used at once.
namespace stream {
void encode(const Product& product, Context& context);
void decode(const Product& product, Context& context);
void pair(const PairProduct& product, Context& context);
}  // namespace stream

/// Many samples, bound by arithmetic: a tile of rows stays in cache for both of its products.
namespace tile {
void encode(const Product& product, Context& context);
void decode(const Product& product, Context& context);
void pair(const PairProduct& product, Context& context);
}  // namespace tile

}  // namespace tiedexport::internal::native
