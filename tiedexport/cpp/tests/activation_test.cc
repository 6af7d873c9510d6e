#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "native/products.hpp"

namespace tiedexport::internal::native {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr Activation kAll[] = {Activation::none, Activation::relu, Activation::gelu,
                               Activation::tanh, Activation::sigmoid};
constexpr const char* kNames[] = {"none", "relu", "gelu", "tanh", "sigmoid"};

double exact(Activation activation, double x) {
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      return x < 0.0 ? 0.0 : x;
    case Activation::gelu:
      return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case Activation::tanh:
      return std::tanh(x);
    case Activation::sigmoid:
      return x < 0.0 ? std::exp(x) / (1.0 + std::exp(x)) : 1.0 / (1.0 + std::exp(-x));
  }
  return x;
}

/// In units of 2^-24 of the result; verify's bound has room for 4 √(8/3) = 6.5 of them (of |x| for
/// gelu, of 1 for sigmoid).
double roundings_of(Activation activation) {
  constexpr std::array<double, 5> roundings{0.0, 0.0, 6.0, 4.0, 4.0};
  return roundings[static_cast<std::size_t>(activation)];
}

/// Floats of every magnitude and both signs, and densely those where the functions bend.
std::vector<float> grid() {
  std::vector<float> values{0.0F, -0.0F, kInfinity, -kInfinity};
  for (std::uint32_t bits = 1; bits < 0x7F800000U; bits += 997) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    values.push_back(value);
    values.push_back(-value);
  }
  for (int i = -200000; i <= 200000; ++i) values.push_back(static_cast<float>(i) * 1e-4F);
  return values;
}

using Case = std::tuple<Simd, Activation>;
class ActivationOn : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!simd_runs_here(simd)) GTEST_SKIP() << name_of(simd) << " does not run here";
  }
  const Simd simd = std::get<0>(GetParam());
  const Activation activation = std::get<1>(GetParam());
};

TEST_P(ActivationOn, IsWithinItsRoundingsOfFloat64) {
  const std::vector<float> in = grid();
  std::vector<float> out = in;
  activate(activation, out.data(), out.size(), simd);
  const double relative = roundings_of(activation) * std::ldexp(1.0, -24);
  double worst = 0.0;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const double y = exact(activation, static_cast<double>(in[i]));
    if (std::isinf(in[i])) continue;
    const double tiny = relative == 0.0 ? 0.0 : 4 * std::ldexp(1.0, -149);
    const double error = std::abs(static_cast<double>(out[i]) - y);
    ASSERT_LE(error, relative * std::abs(y) + tiny)
        << in[i] << " gives " << out[i] << ", not " << y << ": off by "
        << error / std::abs(y) * std::ldexp(1.0, 24) << " roundings";
    if (std::abs(y) > 1e-30) worst = std::max(worst, error / std::abs(y) * std::ldexp(1.0, 24));
  }
  RecordProperty("roundings", std::to_string(worst));
}

TEST_P(ActivationOn, TreatsInfinitiesAndNanAsFloat64Does) {
  for (const float x : {kInfinity, -kInfinity, kNan}) {
    float y = x;
    activate(activation, &y, 1, simd);
    const double expected = exact(activation, static_cast<double>(x));
    if (std::isnan(expected) || (activation == Activation::sigmoid && std::isnan(x))) {
      EXPECT_TRUE(std::isnan(y)) << x << " gives " << y;
    } else if (activation == Activation::sigmoid) {
      EXPECT_EQ(y, x > 0 ? 1.0F : 0.0F);
    } else {
      EXPECT_EQ(y, static_cast<float>(expected)) << x;
    }
  }
}

TEST_P(ActivationOn, TouchesItsArrayAloneAndAllOfIt) {
  std::array<float, 64> all;
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<float>(i) / 16.0F - 2.03F;
    activate(activation, &all[i], 1, simd);
  }
  for (std::size_t count = 0; count <= 40; ++count) {
    std::array<float, 64> some;
    for (std::size_t i = 0; i < some.size(); ++i) some[i] = static_cast<float>(i) / 16.0F - 2.03F;
    const std::array<float, 64> before = some;
    activate(activation, some.data() + 1, count, simd);
    for (std::size_t i = 0; i < some.size(); ++i) {
      ASSERT_EQ(some[i], i >= 1 && i <= count ? all[i] : before[i]) << count << " at " << i;
    }
  }
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  return "simd" + std::to_string(static_cast<int>(std::get<0>(info.param))) + "_" +
         kNames[static_cast<int>(std::get<1>(info.param))];
}
INSTANTIATE_TEST_SUITE_P(All, ActivationOn,
                         testing::Combine(testing::ValuesIn(kEverySimd), testing::ValuesIn(kAll)),
                         name_of_case);

}  // namespace
}  // namespace tiedexport::internal::native
