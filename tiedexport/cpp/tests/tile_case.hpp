// Products whose results are known: memory that ends at a page that faults, and float64.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "native/products.hpp"
#include "sanitized.hpp"

namespace tiedexport::internal::native {

/// Memory whose last byte is followed by a page that faults.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t whole = (bytes + page - 1) / page * page;
    size_ = whole + page;
    void* memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    memory_ = static_cast<std::byte*>(memory);
    EXPECT_EQ(mprotect(memory_ + whole, page, PROT_NONE), 0);
    data_ = memory_ + whole - bytes;
  }
  ~Guarded() { munmap(memory_, size_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte *memory_ = nullptr, *data_ = nullptr;
  std::size_t size_ = 0;
};

inline std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> values(-1.0F, 1.0F);
  std::vector<float> result(count);
  for (float& value : result) value = values(generator);
  return result;
}

/// Values as `type` stores them.
inline std::vector<float> stored_as(Type type, std::vector<float> values) {
  if (type == Type::fp32) return values;
  std::vector<std::uint16_t> narrow_values(values.size());
  narrow(type, values.data(), values.size(), narrow_values.data(), Simd::scalar);
  widen(type, narrow_values.data(), values.size(), values.data(), Simd::scalar);
  return values;
}

/// W in float64 and as stored, samples for both products, and biases.
struct Case {
  Case(Type of_type, std::size_t row_count, std::size_t column_count, std::size_t batch)
      : type(of_type),
        rows(row_count),
        columns(column_count),
        w(stored_as(type, random_values(rows * columns, 1))),
        stored(rows * columns * size_of(type)),
        x(random_values(batch * columns, 2)),
        z(random_values(batch * rows, 3)),
        hidden_bias(random_values(rows, 4)),
        out_bias(random_values(columns, 5)) {
    store_weights();
  }

  void store_weights() {
    if (type == Type::fp32) {
      std::memcpy(stored.as<float>(), w.data(), w.size() * sizeof(float));
    } else {
      narrow(type, w.data(), w.size(), stored.as<void>(), Simd::scalar);
    }
  }
  Matrix matrix() const { return {stored.as<void>(), type, rows, columns}; }

  Type type;
  std::size_t rows, columns;
  std::vector<float> w;
  Guarded stored;
  std::vector<float> x, z, hidden_bias, out_bias;
};

enum class Way { encode, decode, pair };

/// One of the ways to compute products: tile or stream.
struct Products {
  void (*encode)(const Product&, Context&);
  void (*decode)(const Product&, Context&);
  void (*pair)(const PairProduct&, Context&);
};

struct Machine {
  Machine(Simd of_simd, int threads,
          const Products& of_products = {&tile::encode, &tile::decode, &tile::pair})
      : simd(of_simd), pool(threads), products(of_products) {}

  /// `batch` samples, from and to memory that ends at a page that faults.
  std::vector<float> run(Way way, const Case& c, std::size_t batch,
                         Activation activation = Activation::none) {
    Context context{simd, pool, scratch};
    scratch.rewind();
    const std::vector<float>& from = way == Way::decode ? c.z : c.x;
    const std::size_t in_width = way == Way::decode ? c.rows : c.columns;
    const std::size_t out_count = batch * (way == Way::encode ? c.rows : c.columns);
    const Guarded in(batch * in_width * sizeof(float)), out(out_count * sizeof(float));
    std::copy_n(from.data(), batch * in_width, in.as<float>());
    std::fill_n(out.as<float>(), out_count, std::numeric_limits<float>::quiet_NaN());
    const float* hidden_bias = c.hidden_bias.empty() ? nullptr : c.hidden_bias.data();
    const float* out_bias = c.out_bias.empty() ? nullptr : c.out_bias.data();
    if (way == Way::pair) {
      products.pair({c.matrix(), batch, in.as<float>(), hidden_bias, activation, out_bias,
                     activation, out.as<float>()},
                    context);
    } else {
      const Product product{c.matrix(),     batch,
                            in.as<float>(), way == Way::encode ? hidden_bias : out_bias,
                            activation,     out.as<float>()};
      way == Way::encode ? products.encode(product, context) : products.decode(product, context);
    }
    return {out.as<float>(), out.as<float>() + out_count};
  }

  /// Leaves NaN where the next run finds its memory, so that it cannot rely on what was there.
  void poison() {
    constexpr std::size_t bytes = std::size_t{8} << 20;
    scratch.rewind();
    std::memset(scratch.take(bytes), 0xFF, bytes);
  }

  Simd simd;
  Pool pool;
  Products products;
  Scratch scratch;
};

/// The bytes, so that NaN equals itself and -0 is not 0.
inline bool same_bits(const float* a, const float* b, std::size_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}

/// Σ of n products and a bias in fp32, in any order, errs by at most γ_{n+1} Σ|terms| (Higham,
/// Accuracy and Stability of Numerical Algorithms, section 3.1); where pairs of bfloat16 are
/// multiplied, numbers below 2^-126 count as zero.
struct Judge {
  Judge(const Case& of_case, Way of_way, Simd simd)
      : c(of_case),
        encodes(of_way == Way::encode),
        in(encodes ? c.x : c.z),
        bias(encodes ? c.hidden_bias : c.out_bias),
        terms(encodes ? c.columns : c.rows),
        outputs(encodes ? c.rows : c.columns) {
    // Products of bfloat16 take samples that are rounded to it.
    if (c.type == Type::bf16 && multiplies_pairs(simd)) in = stored_as(Type::bf16, in);
  }

  void expect_close(const std::vector<float>& results, std::size_t batch) const {
    const double u = std::ldexp(1.0, -24), n = static_cast<double>(terms) + 1.0;
    const double gamma = n * u / (1.0 - n * u);
    for (std::size_t b = 0; b < batch; b += sanitized ? 7 : 1) {
      for (std::size_t o = 0; o < outputs; ++o) {
        double sum = bias[o], magnitude = std::abs(sum);
        for (std::size_t t = 0; t < terms; ++t) {
          const double product = static_cast<double>(in[b * terms + t]) *
                                 c.w[encodes ? o * c.columns + t : t * c.columns + o];
          sum += product;
          magnitude += std::abs(product);
        }
        const double bound = gamma * magnitude + n * std::ldexp(1.0, -120);
        ASSERT_NEAR(results[b * outputs + o], sum, bound) << "sample " << b << ", output " << o;
      }
    }
  }

  const Case& c;
  bool encodes;
  std::vector<float> in, bias;
  std::size_t terms, outputs;
};

}  // namespace tiedexport::internal::native
