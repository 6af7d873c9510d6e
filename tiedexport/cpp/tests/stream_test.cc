// Products of a few samples against float64, for every instruction set, type, width, batch and
// number of threads, with W, samples and results each ending at a page that nobody may touch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "native/products.hpp"
#include "sanitized.hpp"
#include "tile_case.hpp"

namespace tiedexport::internal::native {
namespace {

constexpr Products streaming = {&stream::encode, &stream::decode, &stream::pair};
constexpr Way ways[] = {Way::encode, Way::decode, Way::pair};
constexpr std::size_t kMostSamples = 17;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Shape {
  std::size_t rows, columns;
};
// The wide ones have more columns than a panel, the high ones more rows than a tile.
constexpr Shape shapes[] = {{1, 1},   {1, 257}, {257, 1},  {2, 3},    {3, 2},    {7, 17},
                            {17, 7},  {31, 64}, {64, 31},  {40, 127}, {127, 40}, {8, 16},
                            {70, 63}, {9, 641}, {25, 533}, {5, 4200}};

using Machines = std::vector<std::unique_ptr<Machine>>;

/// One for each instruction set that runs here and number of threads.
Machines machines() {
  Machines result;
  for (const Simd simd : kEverySimd) {
    if (!simd_runs_here(simd) || simd == Simd::amx_bf16) continue;  // which streams as AVX-512
    for (const int threads : {1, 2, 3})
      result.push_back(std::make_unique<Machine>(simd, threads, streaming));
  }
  return result;
}

std::string words(const Machine& machine, Way way, const Case& c, std::size_t batch) {
  return std::string(name_of(machine.simd)) + ", threads " + std::to_string(machine.pool.size()) +
         ", way " + std::to_string(static_cast<int>(way)) + ", W " + std::to_string(c.rows) +
         " x " + std::to_string(c.columns) + ", batch " + std::to_string(batch);
}

/// Results in float64 and how far fp32 may be from them.
struct Expected {
  std::vector<double> values, bounds;
  std::size_t width;
};

/// γ_n = n u / (1 - n u), u = 2^-24: Σ of n terms, in any order, with products or without, errs by
/// at most γ_n Σ|terms| (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
double gamma(std::size_t n) {
  const double nu = static_cast<double>(n) * std::ldexp(1.0, -24);
  return nu / (1.0 - nu);
}

/// y = f(s A + bias), where each s is known up to `errors` (none: exactly): Σ err |a| is passed on,
/// and γ_{n+1} Σ|s + err||a| is new. f is the identity or relu, which enlarges no error.
Expected product(const std::vector<double>& samples, const std::vector<double>& errors,
                 std::size_t terms, const Case& c, bool encodes, Activation activation) {
  const std::vector<float>& bias = encodes ? c.hidden_bias : c.out_bias;
  Expected result{{}, {}, bias.size()};
  for (std::size_t b = 0; b < kMostSamples; ++b) {
    for (std::size_t o = 0; o < bias.size(); ++o) {
      double sum = bias[o], passed_on = 0, magnitude = std::abs(sum);
      for (std::size_t t = 0; t < terms; ++t) {
        const double weight = c.w[encodes ? o * c.columns + t : t * c.columns + o];
        const double sample = samples[b * terms + t];
        const double error = errors.empty() ? 0 : errors[b * terms + t];
        sum += sample * weight;
        passed_on += error * std::abs(weight);
        magnitude += (std::abs(sample) + error) * std::abs(weight);
      }
      result.values.push_back(activation == Activation::relu ? std::max(sum, 0.0) : sum);
      // Products below 2^-126 lose less than 2^-149 each.
      result.bounds.push_back(passed_on + gamma(terms + 1) * magnitude +
                              static_cast<double>(terms) * std::ldexp(1.0, -149));
    }
  }
  return result;
}

Expected expected(const Case& c, Way way, Activation activation) {
  const std::vector<double> x(c.x.begin(), c.x.end()), z(c.z.begin(), c.z.end());
  if (way == Way::decode) return product(z, {}, c.rows, c, false, activation);
  const Expected hidden = product(x, {}, c.columns, c, true, activation);
  if (way == Way::encode) return hidden;
  return product(hidden.values, hidden.bounds, c.rows, c, false, activation);
}

void expect_close(const std::vector<float>& results, const Expected& e, std::size_t batch) {
  for (std::size_t i = 0; i < batch * e.width; ++i)
    ASSERT_NEAR(results[i], e.values[i], e.bounds[i])
        << "sample " << i / e.width << ", output " << i % e.width;
}

class Stream : public testing::TestWithParam<Type> {};

TEST_P(Stream, IsWithinTheBoundOfFloat64) {
  const Machines all = machines();
  for (const auto& machine : all) machine->poison();
  for (const Shape& shape : shapes) {
    const Case c(GetParam(), shape.rows, shape.columns, kMostSamples);
    for (const Way way : ways) {
      const Activation activation = way == Way::decode ? Activation::none : Activation::relu;
      const Expected e = expected(c, way, activation);
      for (const auto& machine : all) {
        for (std::size_t batch = 1; batch <= kMostSamples; batch += sanitized ? 4 : 1) {
          expect_close(machine->run(way, c, batch, activation), e, batch);
          if (HasFatalFailure()) FAIL() << words(*machine, way, c, batch);
        }
      }
    }
  }
}

TEST_P(Stream, GivesTheSameBitsAgainWhateverWasInMemory) {
  const Case c(GetParam(), 70, 533, kMostSamples);
  for (const auto& machine : machines()) {
    for (const Way way : ways) {
      for (const std::size_t batch : {1, 2, 5, 8, 17}) {
        const std::vector<float> once = machine->run(way, c, batch);
        machine->poison();
        const std::vector<float> again = machine->run(way, c, batch);
        ASSERT_TRUE(same_bits(once.data(), again.data(), once.size()))
            << words(*machine, way, c, batch);
      }
    }
  }
}

TEST_P(Stream, ComputesWithoutBiases) {
  Case c(GetParam(), 9, 35, kMostSamples);
  for (std::vector<float>* bias : {&c.hidden_bias, &c.out_bias})
    std::fill(bias->begin(), bias->end(), 0.0F);
  std::vector<Expected> all_expected;
  for (const Way way : ways) all_expected.push_back(expected(c, way, Activation::none));
  c.hidden_bias.clear();
  c.out_bias.clear();
  for (const auto& machine : machines()) {
    for (std::size_t i = 0; i < std::size(ways); ++i) {
      expect_close(machine->run(ways[i], c, 3), all_expected[i], 3);
      if (HasFatalFailure()) FAIL() << words(*machine, ways[i], c, 3);
    }
  }
}

/// Every place, in whole vectors and behind them: 0 times infinity is NaN, and NaN stays.
TEST_P(Stream, SkipsNoProductWithZero) {
  for (const auto& machine : machines()) {
    for (const std::size_t place : {0, 5, 15, 16, 31, 32, 34}) {
      Case c(GetParam(), 9, 35, 1);
      std::fill(c.x.begin(), c.x.end(), 0.0F);
      std::fill(c.z.begin(), c.z.end(), 0.0F);
      c.w[3 * c.columns + place] = kInfinity;
      c.store_weights();
      const std::vector<float> z = machine->run(Way::encode, c, 1);
      const std::vector<float> y = machine->run(Way::decode, c, 1);
      const std::vector<float> both = machine->run(Way::pair, c, 1);
      for (std::size_t i = 0; i < c.rows; ++i)
        ASSERT_EQ(std::isnan(z[i]), i == 3) << words(*machine, Way::encode, c, 1);
      for (std::size_t k = 0; k < c.columns; ++k) {
        ASSERT_EQ(std::isnan(y[k]), k == place) << words(*machine, Way::decode, c, 1);
        ASSERT_TRUE(std::isnan(both[k])) << words(*machine, Way::pair, c, 1);  // z[3] is NaN
      }
    }
  }
}

TEST_P(Stream, ASampleThatOverflowsSpoilsNoOther) {
  Case c(GetParam(), 9, 35, 3);
  std::fill_n(c.x.begin() + 35, 35, kInfinity);
  std::fill_n(c.z.begin() + 9, 9, kInfinity);
  for (const auto& machine : machines()) {
    for (const Way way : ways) {
      const std::vector<float> y = machine->run(way, c, 3);
      const std::size_t width = y.size() / 3;
      for (std::size_t i = 0; i < y.size(); ++i)
        ASSERT_EQ(std::isfinite(y[i]), i / width != 1) << words(*machine, way, c, 3);
    }
  }
}

/// The smallest number that the type stores, and the largest, times powers of two: exact.
TEST_P(Stream, KeepsSubnormalNumbers) {
  Case c(GetParam(), 3, 21, 1);
  const float smallest = std::ldexp(1.0F, GetParam() == Type::fp32   ? -149
                                          : GetParam() == Type::fp16 ? -24
                                                                     : -133);
  for (std::vector<float>* values : {&c.w, &c.x, &c.z, &c.hidden_bias, &c.out_bias})
    std::fill(values->begin(), values->end(), 0.0F);
  c.w[1 * c.columns + 20] = 3 * smallest;
  c.x[20] = 2.0F;
  c.z[1] = 4.0F;
  c.store_weights();
  for (const auto& machine : machines()) {
    EXPECT_EQ(machine->run(Way::encode, c, 1)[1], 6 * smallest) << name_of(machine->simd);
    EXPECT_EQ(machine->run(Way::decode, c, 1)[20], 12 * smallest) << name_of(machine->simd);
  }
}

INSTANTIATE_TEST_SUITE_P(Type, Stream, testing::Values(Type::fp32, Type::fp16, Type::bf16),
                         [](const auto& instance) {
                           return std::string(instance.param == Type::fp32   ? "fp32"
                                              : instance.param == Type::fp16 ? "fp16"
                                                                             : "bf16");
                         });

}  // namespace
}  // namespace tiedexport::internal::native
