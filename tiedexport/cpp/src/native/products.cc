// Which of the two ways computes a product.
#include "native/products.hpp"

namespace tiedexport::internal::native {
namespace {

/// The largest batch for which reading W once, in whatever pieces, beats computing fast.
std::size_t largest_streamed(Type type, Simd simd) {
  if (type == Type::bf16 && simd == Simd::avx512_bf16) return 4;
  return 8;
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
