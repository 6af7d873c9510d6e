// Which threads serve a call: one alone, all on each product, or each with samples of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "made_layers.hpp"
#include "native/program.hpp"
#include "stored_model.hpp"

namespace tiedexport::internal::native {
namespace {

struct Served {
  std::vector<float> values;
  std::size_t parts;  // threads that had samples of their own
};

Served serve(const Model& model, std::size_t batch, int threads) {
  const auto weights = mapped(model.tensors);
  const Simd simd = simd_runs_here(Simd::avx2) ? Simd::avx2 : Simd::scalar;
  const Program program = compile(model.stage, *weights, simd, "test.tied");
  std::mt19937 random{11};
  std::uniform_real_distribution<float> number(-1.0F, 1.0F);
  std::vector<float> in(batch * program.input_count), out(batch * program.output_count, NAN);
  std::generate(in.begin(), in.end(), [&] { return number(random); });
  Pool pool(threads);
  Workspace workspace;
  for (int again = 0; again < 2; ++again) {
    std::vector<float> before = out;
    run(program, batch, in.data(), out.data(), simd, pool, workspace);
    if (again == 1) {
      EXPECT_EQ(std::memcmp(out.data(), before.data(), out.size() * sizeof(float)), 0);
    }
  }
  return {out, workspace.parts.size()};
}

void expect_as_one_thread(const Model& model, std::size_t batch, int threads, bool apart) {
  const Served one = serve(model, batch, 1), many = serve(model, batch, threads);
  EXPECT_EQ(one.parts, 0U);
  EXPECT_EQ(many.parts, apart ? static_cast<std::size_t>(threads) : 0U) << batch;
  for (std::size_t i = 0; i < one.values.size(); ++i)
    ASSERT_NEAR(one.values[i], many.values[i], 1e-4F)
        << "batch " << batch << ", threads " << threads << ", number " << i;
}

class ProgramThreads : public testing::Test {
 protected:
  std::mt19937 random{7};
};

TEST_F(ProgramThreads, HaveSamplesOfTheirOwnWhereAllWeightsAreInCache) {
  const Model model = stack({160, 96, 33}, Type::fp32, Op::sigmoid, true, random);
  for (const int threads : {2, 3})
    for (const std::size_t batch : {12U, 13U, 17U, 50U, 100U})
      expect_as_one_thread(model, batch, threads, true);
}

TEST_F(ProgramThreads, ShareTheProductsOfAFewSamples) {
  const Model model = stack({900, 500, 300}, Type::fp32, Op::sigmoid, true, random);
  for (const int threads : {2, 3})
    for (const std::size_t batch : {1U, 2U, 7U}) expect_as_one_thread(model, batch, threads, false);
}

TEST_F(ProgramThreads, ShareTheProductsOfWeightsLargerThanACache) {
  const Model model = stack({2100, 1000}, Type::fp32, Op::sigmoid, true, random);
  for (const std::size_t batch : {8U, 40U}) expect_as_one_thread(model, batch, 2, false);
}

TEST_F(ProgramThreads, LeaveLittleWorkToOne) {
  const Model model = stack({20, 10}, Type::fp32, Op::sigmoid, true, random);
  expect_as_one_thread(model, 64, 2, false);
}

}  // namespace
}  // namespace tiedexport::internal::native
