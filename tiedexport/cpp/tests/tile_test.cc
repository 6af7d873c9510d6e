// Products of many samples against float64, for every instruction set, type, width and batch, with
// W, samples and results each ending at a page that nobody may touch.
#include "native/tile.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "native/amx.hpp"
#include "native/products.hpp"
#include "sanitized.hpp"
#include "tile_case.hpp"

namespace tiedexport::internal::native {
namespace {

struct Shape {
  std::size_t rows, columns;
};
constexpr Shape shapes[] = {{1, 1},   {2, 3},   {3, 2},    {7, 17},   {17, 7},
                            {31, 64}, {64, 31}, {127, 64}, {64, 127}, {257, 127},
                            {1, 257}, {257, 1}, {397, 70}};
constexpr std::size_t batches[] = {1,  2,  3,  8,   15,  16,  17,  31, 33,
                                   63, 64, 65, 127, 128, 200, 257, 513};
constexpr Way ways[] = {Way::encode, Way::decode, Way::pair};

class Tile : public testing::TestWithParam<std::tuple<Simd, Type>> {
 protected:
  void SetUp() override {
    if (simd() == Simd::amx_bf16) {
      if (type() != Type::bf16) GTEST_SKIP() << "the same kernels as avx512_bf16";
      if (why_no_amx() != nullptr) GTEST_SKIP() << "not run: " << why_no_amx();
    }
    if (!simd_runs_here(simd())) GTEST_SKIP() << "this CPU or build lacks it";
  }
  static Simd simd() { return std::get<0>(GetParam()); }
  static Type type() { return std::get<1>(GetParam()); }
};

TEST_P(Tile, IsWithinTheBoundOfFloat64) {
  Machine machine(simd(), 1);
  machine.poison();
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(std::to_string(shape.rows) + " x " + std::to_string(shape.columns));
    const Case c(type(), shape.rows, shape.columns, 65);
    for (const Way way : {Way::encode, Way::decode}) {
      for (const std::size_t batch : {13U, 65U}) {
        Judge(c, way, simd()).expect_close(machine.run(way, c, batch), batch);
      }
    }
  }
}

// More than one tile of rows, strip of columns, and block of units: each edge of a loop.
TEST_P(Tile, IsWithinTheBoundOfFloat64BeyondOneTile) {
  Machine machine(simd(), 2);
  const Case c(type(), 781, 2091, 19);
  for (const Way way : {Way::encode, Way::decode}) {
    for (const std::size_t batch : {11U, 19U}) {
      Judge(c, way, simd()).expect_close(machine.run(way, c, batch), batch);
    }
  }
}

// So that all batches are as right as those held to float64. A few samples have kernels of their
// own where bfloat16 are multiplied in pairs.
TEST_P(Tile, ASampleDoesNotDependOnThreadsOrBatch) {
  const bool pairs = multiplies_pairs(simd()) && type() == Type::bf16;
  const std::size_t few = pairs ? tile::kFewSamples : 0;
  for (const Shape& shape : shapes) {
    const std::size_t most = sanitized ? 33 : 513;
    const Case c(type(), shape.rows, shape.columns, most);
    for (const Way way : ways) {
      const std::vector<float> of_many = Machine(simd(), 1).run(way, c, most);
      const std::vector<float> of_few =
          Machine(simd(), 1).run(way, c, std::max<std::size_t>(few, 1));
      for (const int threads : {1, 2, 3}) {
        Machine machine(simd(), threads);
        for (const std::size_t batch : batches) {
          if (batch > most) break;
          const std::vector<float> results = machine.run(way, c, batch);
          const std::vector<float>& expected = batch <= few ? of_few : of_many;
          ASSERT_TRUE(same_bits(results.data(), expected.data(), results.size()))
              << shape.rows << " x " << shape.columns << ", batch " << batch << ", " << threads
              << " threads, way " << static_cast<int>(way);
        }
      }
    }
  }
}

TEST_P(Tile, BothProductsAtOnceAreTheTwoInARow) {
  for (const Shape& shape : {Shape{7, 17}, Shape{127, 64}, Shape{397, 1000}}) {
    Case c(type(), shape.rows, shape.columns, 33);
    Machine machine(simd(), 2);
    const std::vector<float> both = machine.run(Way::pair, c, 33, Activation::sigmoid);
    c.z = machine.run(Way::encode, c, 33, Activation::sigmoid);
    const std::vector<float> decoded = machine.run(Way::decode, c, 33, Activation::sigmoid);
    EXPECT_TRUE(same_bits(both.data(), decoded.data(), both.size()));
    EXPECT_GT(both[0], 0.0F);
  }
}

TEST_P(Tile, BiasMayBeAbsent) {
  Case c(type(), 31, 64, 17), zero(type(), 31, 64, 17);
  c.hidden_bias.clear();
  c.out_bias.clear();
  std::fill(zero.hidden_bias.begin(), zero.hidden_bias.end(), 0.0F);
  std::fill(zero.out_bias.begin(), zero.out_bias.end(), 0.0F);
  Machine machine(simd(), 2);
  for (const Way way : ways) EXPECT_EQ(machine.run(way, c, 17), machine.run(way, zero, 17));
}

// A sample of NaN beside the others, in lanes of the same vectors.
TEST_P(Tile, NoNumberReachesAnotherSample) {
  Case c(type(), 33, 67, 19);
  Machine machine(simd(), 2);
  for (const Way way : ways) {
    machine.poison();
    const std::vector<float> clean = machine.run(way, c, 19);
    Case spoilt(type(), 33, 67, 19);
    const std::size_t width = way == Way::encode ? 33 : 67;
    std::fill_n(spoilt.x.data() + 4 * 67, 67, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(spoilt.z.data() + 4 * 33, 33, std::numeric_limits<float>::infinity());
    const std::vector<float> results = machine.run(way, spoilt, 19);
    for (std::size_t b = 0; b < 19; ++b) {
      const bool same = same_bits(&results[b * width], &clean[b * width], width);
      EXPECT_EQ(same, b != 4) << "sample " << b << ", way " << static_cast<int>(way);
    }
    for (std::size_t o = 0; o < width; ++o) EXPECT_FALSE(std::isfinite(results[4 * width + o]));
  }
}

// 0 times infinity is NaN, also where rows or columns are odd and a unit is half empty.
TEST_P(Tile, InfiniteAndMissingWeightsReachWhatTheyShould) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Shape& shape : {Shape{5, 7}, Shape{6, 50}, Shape{385, 1025}}) {
    Case c(type(), shape.rows, shape.columns, 3);
    const std::size_t last_row = shape.rows - 1, last_column = shape.columns - 1;
    c.w[c.w.size() - 1] = infinity;
    c.w[0] = nan;
    c.store_weights();
    for (std::size_t b = 0; b < 3; ++b) {
      c.x[b * shape.columns + last_column] = b == 0 ? 0.0F : 1.0F;
      c.z[b * shape.rows + last_row] = b == 0 ? 0.0F : 1.0F;
    }
    Machine machine(simd(), 1);
    machine.poison();
    const std::vector<float> z = machine.run(Way::encode, c, 3);
    const std::vector<float> out = machine.run(Way::decode, c, 3);
    for (std::size_t b = 0; b < 3; ++b) {
      for (std::size_t i = 1; i < last_row; ++i) EXPECT_TRUE(std::isfinite(z[b * shape.rows + i]));
      for (std::size_t k = 1; k < last_column; ++k)
        EXPECT_TRUE(std::isfinite(out[b * shape.columns + k]));
      EXPECT_TRUE(std::isnan(z[b * shape.rows]));
      EXPECT_TRUE(std::isnan(out[b * shape.columns]));
      const float z_last = z[b * shape.rows + last_row];
      const float out_last = out[b * shape.columns + last_column];
      EXPECT_TRUE(b == 0 ? std::isnan(z_last) : z_last == infinity);
      EXPECT_TRUE(b == 0 ? std::isnan(out_last) : out_last == infinity);
    }
  }
}

// Small enough to be denormal, and kept, but for the instruction that takes them for zero.
TEST_P(Tile, DenormalNumbersAreKept) {
  if (multiplies_pairs(simd()) && type() == Type::bf16) GTEST_SKIP() << "they are zero there";
  Case c(type(), 5, 20, 17);
  std::fill(c.w.begin(), c.w.end(), 1.0F);
  std::fill(c.x.begin(), c.x.end(), std::ldexp(1.0F, -140));
  c.hidden_bias.clear();
  c.store_weights();
  for (const float z : Machine(simd(), 1).run(Way::encode, c, 17)) {
    EXPECT_EQ(z, 20 * std::ldexp(1.0F, -140));
  }
}

std::string name_of_instance(const testing::TestParamInfo<std::tuple<Simd, Type>>& instance) {
  static const char* const types[] = {"fp32", "fp16", "bf16"};
  return std::string(name_of(std::get<0>(instance.param))) + "_" +
         types[static_cast<int>(std::get<1>(instance.param))];
}

INSTANTIATE_TEST_SUITE_P(Everywhere, Tile,
                         testing::Combine(testing::ValuesIn(kEverySimd),
                                          testing::Values(Type::fp32, Type::fp16, Type::bf16)),
                         name_of_instance);

}  // namespace
}  // namespace tiedexport::internal::native
