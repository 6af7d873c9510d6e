// Products by AMX: its kernels on emulated tiles, which every CPU runs, and on real ones where
// there are any. tile_test.cc has the real ones in all that it tests.
#include "native/amx.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "emulated_tiles.hpp"
#include "info.hpp"
#include "native/products.hpp"
#include "native/tile.hpp"
#include "tile_case.hpp"

namespace tiedexport::internal::native::tile {
namespace {
#include "native/tile_amx-inl.h"
}  // namespace
}  // namespace tiedexport::internal::native::tile

namespace tiedexport::internal::native {
namespace {

const tile::Kernels& emulated() { return tile::tile_kernels<EmulatedTiles>(); }

/// tile::encode, decode and pair by emulated tiles.
constexpr Products by_emulated_tiles = {
    [](const Product& product, Context& context) { tile::encode(product, context, emulated()); },
    [](const Product& product, Context& context) { tile::decode(product, context, emulated()); },
    [](const PairProduct& product, Context& context) { tile::pair(product, context, emulated()); }};

Machine emulating(int threads) { return Machine(Simd::scalar, threads, by_emulated_tiles); }

/// Samples are rounded to bfloat16, as by the instruction set.
Judge judge(const Case& c, Way way) { return Judge(c, way, Simd::amx_bf16); }

constexpr Way ways[] = {Way::encode, Way::decode, Way::pair};

struct Shape {
  std::size_t rows, columns;
};
// One less, as many and one more than a tile or a block of them; both odd; more than one strip.
constexpr Shape shapes[] = {{1, 1},   {2, 3},   {3, 2},   {15, 31}, {16, 32}, {17, 33},
                            {31, 17}, {32, 64}, {33, 63}, {64, 31}, {65, 129}};

TEST(EmulatedAmx, IsWithinTheBoundOfFloat64) {
  Machine machine = emulating(1);
  machine.poison();
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(std::to_string(shape.rows) + " x " + std::to_string(shape.columns));
    const Case c(Type::bf16, shape.rows, shape.columns, 49);
    for (const Way way : {Way::encode, Way::decode}) {
      for (const std::size_t batch : {1U, 2U, 15U, 16U, 17U, 31U, 32U, 33U, 49U})
        judge(c, way).expect_close(machine.run(way, c, batch), batch);
    }
  }
}

// More than one tile of rows, strip of columns and block of steps, each with a rest.
TEST(EmulatedAmx, IsWithinTheBoundOfFloat64BeyondOneTile) {
  Machine machine = emulating(2);
  const Case c(Type::bf16, 781, 2091, 19);
  for (const Way way : {Way::encode, Way::decode})
    judge(c, way).expect_close(machine.run(way, c, 19), 19);
}

TEST(EmulatedAmx, ASampleDoesNotDependOnThreadsOrBatch) {
  for (const Shape& shape : {Shape{17, 33}, Shape{131, 75}, Shape{40, 270}}) {
    const Case c(Type::bf16, shape.rows, shape.columns, 257);
    for (const Way way : ways) {
      const std::vector<float> of_many = emulating(1).run(way, c, 257);
      for (const int threads : {1, 3}) {
        for (const std::size_t batch : {1U, 9U, 16U, 33U, 128U}) {
          const std::vector<float> results = emulating(threads).run(way, c, batch);
          ASSERT_TRUE(same_bits(results.data(), of_many.data(), results.size()))
              << shape.rows << " x " << shape.columns << ", batch " << batch << ", " << threads
              << " threads, way " << static_cast<int>(way);
        }
      }
    }
  }
}

TEST(EmulatedAmx, BothProductsAtOnceAreTheTwoInARow) {
  Case c(Type::bf16, 809, 70, 33);
  Machine machine = emulating(2);
  const std::vector<float> both = machine.run(Way::pair, c, 33, Activation::sigmoid);
  c.z = machine.run(Way::encode, c, 33, Activation::sigmoid);
  EXPECT_EQ(both, machine.run(Way::decode, c, 33, Activation::sigmoid));
  EXPECT_GT(both[0], 0.0F);
}

TEST(EmulatedAmx, NoNumberReachesAnotherSample) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Case c(Type::bf16, 33, 67, 19), spoilt(Type::bf16, 33, 67, 19);
  std::fill_n(spoilt.x.data() + 4 * 67, 67, nan);
  std::fill_n(spoilt.z.data() + 4 * 33, 33, std::numeric_limits<float>::infinity());
  Machine machine = emulating(2);
  for (const Way way : ways) {
    machine.poison();
    const std::vector<float> clean = machine.run(way, c, 19),
                             results = machine.run(way, spoilt, 19);
    const std::size_t width = way == Way::encode ? 33 : 67;
    for (std::size_t b = 0; b < 19; ++b) {
      EXPECT_EQ(same_bits(&results[b * width], &clean[b * width], width), b != 4) << "sample " << b;
    }
    for (std::size_t o = 0; o < width; ++o) EXPECT_FALSE(std::isfinite(results[4 * width + o]));
  }
}

// 0 times infinity is NaN, and only where W or samples have them: not where a tile is filled up.
TEST(EmulatedAmx, InfiniteAndMissingWeightsReachWhatTheyShould) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Shape& shape : {Shape{5, 7}, Shape{32, 64}, Shape{770, 33}}) {
    Case c(Type::bf16, shape.rows, shape.columns, 17);
    c.w[0] = std::numeric_limits<float>::quiet_NaN();
    c.w[c.w.size() - 1] = infinity;
    c.store_weights();
    for (std::size_t b = 0; b < 17; ++b) {
      c.x[(b + 1) * shape.columns - 1] = c.z[(b + 1) * shape.rows - 1] = b == 0 ? 0.0F : 1.0F;
    }
    Machine machine = emulating(1);
    machine.poison();
    for (const Way way : {Way::encode, Way::decode}) {
      const std::size_t width = way == Way::encode ? shape.rows : shape.columns;
      const std::vector<float> results = machine.run(way, c, 17);
      for (std::size_t b = 0; b < 17; ++b) {
        const float* of_sample = &results[b * width];
        EXPECT_TRUE(std::isnan(of_sample[0]));
        for (std::size_t o = 1; o + 1 < width; ++o) EXPECT_TRUE(std::isfinite(of_sample[o]));
        EXPECT_TRUE(b == 0 ? std::isnan(of_sample[width - 1]) : of_sample[width - 1] == infinity);
      }
    }
  }
}

TEST(EmulatedAmx, TakesDenormalNumbersForZero) {
  Case c(Type::bf16, 5, 20, 17);
  std::fill(c.w.begin(), c.w.end(), 1.0F);
  std::fill(c.x.begin(), c.x.end(), std::ldexp(1.0F, -140));
  c.hidden_bias.clear();
  c.store_weights();
  for (const float z : emulating(1).run(Way::encode, c, 17)) EXPECT_EQ(z, 0.0F);
}

// What reads like "no AMX" must be that: neither a CPU without it nor a wrong result is silent.
TEST(Amx, RunsOrSaysWhyNot) {
  EXPECT_EQ(simd_runs_here(Simd::amx_bf16), why_no_amx() == nullptr);
  EXPECT_EQ(best_simd(Type::bf16) == Simd::amx_bf16, why_no_amx() == nullptr);
  EXPECT_NE(best_simd(Type::fp32), Simd::amx_bf16);
  const std::string told = why_no_amx() == nullptr ? "" : why_no_amx();
  EXPECT_TRUE(why_no_amx() == nullptr || told.size() > 10);
  EXPECT_EQ(info().find("no amx_bf16: " + told) == std::string::npos, why_no_amx() == nullptr);
}

TEST(Amx, GivesWhatEmulatedTilesGive) {
  if (why_no_amx() != nullptr) GTEST_SKIP() << "not run: " << why_no_amx();
  Machine real(Simd::amx_bf16, 2), emulated = emulating(2);
  for (const Shape& shape : shapes) {
    const Case c(Type::bf16, shape.rows, shape.columns, 49);
    for (const Way way : {Way::encode, Way::decode}) {
      for (const std::size_t batch : {17U, 32U, 33U, 49U}) {
        const std::vector<float> expected = emulated.run(way, c, batch);
        const std::vector<float> results = real.run(way, c, batch);
        for (std::size_t i = 0; i < expected.size(); ++i) {
          // The CPU may add in another order: up to 130 numbers, smaller than 130 together.
          ASSERT_NEAR(results[i], expected[i], std::ldexp(2.0 * 130.0 * 130.0, -24)) << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace tiedexport::internal::native
