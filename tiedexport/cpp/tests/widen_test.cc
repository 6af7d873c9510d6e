// Every value of 16 bits to fp32, and fp32 of all magnitudes to 16 bits, for every instruction set.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "native/products.hpp"

namespace tiedexport::internal::native {
namespace {

/// What IEEE 754 says of `mantissa_bits` behind an exponent of `exponent_bits`.
double value_of(std::uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
  const double mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1)
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(1 + std::ldexp(mantissa, -mantissa_bits), exponent - bias);
}

struct Format {
  Type type;
  int exponent_bits, mantissa_bits;

  double value(std::uint16_t bits) const { return value_of(bits, exponent_bits, mantissa_bits); }
  std::uint16_t infinity() const {
    return static_cast<std::uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits);
  }
  /// The nearest, the even one of two: by search among all, which are in order.
  std::uint16_t rounded(float x) const {
    const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const double magnitude = std::fabs(static_cast<double>(x));
    std::uint16_t low = 0, high = infinity();
    while (high - low > 1) {
      const auto middle = static_cast<std::uint16_t>((low + high) / 2);
      (value(middle) <= magnitude ? low : high) = middle;
    }
    // Rounding sees infinity as the next number that a larger exponent would have.
    const double above = high == infinity() ? std::ldexp(1, 1 << (exponent_bits - 1)) : value(high);
    const double to_low = magnitude - value(low), to_high = above - magnitude;
    const bool up = to_high < to_low || (to_high == to_low && low % 2 == 1);
    return static_cast<std::uint16_t>(sign | (up ? high : low));
  }
};

constexpr Format formats[] = {{Type::fp16, 5, 10}, {Type::bf16, 8, 7}};

class Widen : public testing::TestWithParam<Simd> {
 protected:
  void SetUp() override {
    if (!simd_runs_here(GetParam())) GTEST_SKIP() << "this CPU or build lacks it";
  }
};

std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

TEST_P(Widen, EveryStoredValue) {
  for (const Format& format : formats) {
    std::vector<std::uint16_t> all(65536);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
    std::vector<float> wide(all.size());
    widen(format.type, all.data(), all.size(), wide.data(), GetParam());
    for (std::size_t i = 0; i < all.size(); ++i) {
      const double expected = format.value(all[i]);
      if (std::isnan(expected))
        ASSERT_TRUE(std::isnan(wide[i])) << i;
      else
        ASSERT_EQ(bits_of(wide[i]), bits_of(static_cast<float>(expected))) << i;
    }
  }
}

TEST_P(Widen, EveryCountToTheValue) {
  const std::vector<std::uint16_t> values(70, 0x3F80);
  for (std::size_t count = 0; count < values.size(); ++count) {
    std::vector<float> wide(values.size() + 1, -7.0F);
    widen(Type::bf16, values.data(), count, wide.data(), GetParam());
    for (std::size_t i = 0; i < wide.size(); ++i) ASSERT_EQ(wide[i], i < count ? 1.0F : -7.0F);
    std::vector<std::uint16_t> narrowed(values.size() + 1, 7);
    narrow(Type::fp16, wide.data(), count, narrowed.data(), GetParam());
    for (std::size_t i = 0; i < narrowed.size(); ++i)
      ASSERT_EQ(narrowed[i], i < count ? 0x3C00 : 7);
  }
}

/// All stored values, what lies halfway between two and beside that, and any bits at all.
std::vector<float> interesting(const Format& format) {
  std::vector<float> values;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const double value = format.value(bits), next = format.value(static_cast<std::uint16_t>(i + 1));
    if (std::isnan(value) || std::isnan(next)) continue;
    const auto halfway = static_cast<float>((value + next) / 2);
    for (const float x : {static_cast<float>(value), halfway, std::nextafterf(halfway, 0.0F),
                          std::nextafterf(halfway, 2 * halfway)})
      values.push_back(x);
  }
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    float x;
    std::memcpy(&x, &bits, sizeof x);
    values.push_back(x);
  }
  return values;
}

TEST_P(Widen, RoundsToNearestEven) {
  for (const Format& format : formats) {
    const std::vector<float> values = interesting(format);
    std::vector<std::uint16_t> narrowed(values.size());
    narrow(format.type, values.data(), values.size(), narrowed.data(), GetParam());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i]))
        ASSERT_TRUE(std::isnan(format.value(narrowed[i]))) << bits_of(values[i]);
      else
        ASSERT_EQ(narrowed[i], format.rounded(values[i])) << values[i];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Simd, Widen, testing::ValuesIn(kEverySimd),
                         [](const auto& instance) { return std::string(name_of(instance.param)); });

TEST(SimdNames, TheBestRunsHere) {
  for (const Type type : {Type::fp32, Type::fp16, Type::bf16})
    EXPECT_TRUE(simd_runs_here(best_simd(type)));
}

}  // namespace
}  // namespace tiedexport::internal::native
