// Which of the two ways computes a product.
#include "native/products.hpp"

namespace tiedexport::internal::native {
namespace {

/// The largest batch for which streaming was the faster way: W [4096, 16384], both products, one
/// thread of a Zen 4, medians in ms, streamed against tiled.
std::size_t largest_streamed(Type type, Simd simd) {
  // Pairs of bfloat16 are multiplied at twice the rate: 11.7 : 12.7 at 4, 17.3 : 14.9 at 6.
  if (type == Type::bf16 && multiplies_pairs(simd)) return 4;
  // Sixteen registers hold four samples, so W passes through L1 more often: 47 : 58 at 8,
  // 80 : 69 at 16. With 16 bits a weight that costs less: 76 : 94 at 24.
  if (type == Type::fp32 && simd == Simd::avx2) return 12;
  // Tiles are widened once, which is slow without an instruction for it: 171 : 195 at 8,
  // 342 : 267 at 16.
  if (type == Type::fp16 && (simd == Simd::sse4 || simd == Simd::scalar)) return 8;
  // AVX-512, fp32: 83 : 87 at 24, 107 : 88 at 32; fp16: 70 : 80 at 24, 137 : 130 at 48.
  return 24;
}

bool streams(const Matrix& w, std::size_t batch, const Context& context) {
  return batch <= largest_streamed(w.type, context.simd);
}

}  // namespace

void encode(const Product& product, Context& context) {
  if (streams(product.w, product.batch, context)) return stream::encode(product, context);
  tile::encode(product, context);
}

void decode(const Product& product, Context& context) {
  if (streams(product.w, product.batch, context)) return stream::decode(product, context);
  tile::decode(product, context);
}

void pair(const PairProduct& product, Context& context) {
  if (streams(product.w, product.batch, context)) return stream::pair(product, context);
  tile::pair(product, context);
}

}  // namespace tiedexport::internal::native
