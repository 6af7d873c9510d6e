#include "native/program.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "made_layers.hpp"
#include "naive_stage.hpp"
#include "stored_model.hpp"

namespace tiedexport::internal::native {
namespace {

double unit_roundoff(Type type) {
  return std::ldexp(1.0, type == Type::fp32 ? -24 : type == Type::fp16 ? -11 : -8);
}

struct Machine {
  Simd simd;
  int threads;
};

std::vector<double> run_stage(const Model& model, std::size_t batch,
                              const std::vector<double>& input, const Machine& machine) {
  const auto weights = mapped(model.tensors);
  const Program program = compile(model.stage, *weights, machine.simd, "test.tied");
  Pool pool(machine.threads);
  Workspace workspace;
  const Type type = model.stage.output.type;
  const std::vector<std::byte> in = packed(input, model.stage.input.type);
  const std::size_t bytes = batch * program.output_count * size_of(type);
  std::vector<std::byte> out(bytes + 64, std::byte{0x5A});
  run(program, batch, in.data(), out.data(), machine.simd, pool, workspace);
  for (std::size_t i = bytes; i < out.size(); ++i) EXPECT_EQ(out[i], std::byte{0x5A});
  std::vector<double> values;
  for (std::size_t i = 0; i < bytes; i += size_of(type)) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &out[i], size_of(type));
    values.push_back(value_of(bits, type));
  }
  return values;
}

std::size_t count_of(const Sizes& shape) {
  std::size_t count = 1;
  for (const std::size_t size : shape) count *= size;
  return count;
}

/// Runs `batch` samples and holds every number of some of them to the naive result.
void expect_naive(const Model& model, std::size_t batch, const Machine& machine,
                  std::mt19937& random) {
  double factor_rounding = 0.0;
  if (multiplies_pairs(machine.simd))
    for (const auto& [name, tensor] : model.tensors)
      if (tensor.type == Type::bf16) factor_rounding = unit_roundoff(Type::bf16);
  const std::size_t in = count_of(model.stage.input.element_shape);
  const std::size_t out = count_of(model.stage.output.element_shape);
  const std::vector<double> x = random_values(batch * in, random);
  const std::vector<double> y = run_stage(model, batch, x, machine);
  ASSERT_EQ(y.size(), batch * out);
  const NaiveStage naive(model.stage, model.tensors, factor_rounding);
  for (std::size_t b = 0; b < batch; b += b < 3 || b + 4 > batch ? 1 : batch / 7 + 1) {
    const Numbers expected = naive.of_sample(&x[b * in]);
    const double u = unit_roundoff(model.stage.output.type);
    for (std::size_t i = 0; i < out; ++i) {
      const double bound =
          expected.bound[i] + u * (std::abs(expected.exact[i]) + expected.bound[i]);
      ASSERT_NEAR(y[b * out + i], expected.exact[i], bound + std::ldexp(1.0, -25))
          << "sample " << b << " of " << batch << ", number " << i << ", " << machine.threads
          << " threads";
    }
  }
}

using Case = std::tuple<Simd, Type>;
class ProgramOn : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!simd_runs_here(simd)) GTEST_SKIP() << name_of(simd) << " does not run here";
  }
  const Simd simd = std::get<0>(GetParam());
  const Type type = std::get<1>(GetParam());
  std::mt19937 random{7};
};

TEST_P(ProgramOn, RunsTiedAndUntiedStacks) {
  for (const Op activation : {Op::relu, Op::gelu, Op::tanh, Op::sigmoid}) {
    for (const bool tied : {true, false}) {
      const Model model = stack({37, 29, 16, 5}, type, activation, tied, random);
      for (const int threads : {1, 2, 3})
        for (const std::size_t batch : {1U, 2U, 17U})
          expect_naive(model, batch, {simd, threads}, random);
    }
  }
}

TEST_P(ProgramOn, RunsEveryBatchInChunks) {
  const Model model = stack({11, 7, 3}, type, Op::relu, true, random);
  for (const std::size_t batch : {1U, 3U, 8U, 63U, 64U, 65U, 511U, 512U, 513U, 1025U})
    expect_naive(model, batch, {simd, 2}, random);
}

TEST_P(ProgramOn, BoundsWhatLiesBetweenStepsOfWideStages) {
  // 9,000 in each buffer for a sample: 116 samples fill 8 MiB.
  const Model model = stack({3, 9000, 40, 2}, type, Op::relu, true, random);
  expect_naive(model, 131, {simd, 2}, random);
}

TEST_P(ProgramOn, ReadsAndWritesTheTypesOfTheStage) {
  for (const Type in : {Type::fp32, Type::fp16, Type::bf16}) {
    for (const Type out : {Type::fp32, Type::fp16, Type::bf16}) {
      Model model = stack({23, 9}, type, Op::tanh, true, random);
      model.stage.input.type = in;
      model.stage.output.type = out;
      expect_naive(model, 21, {simd, 2}, random);
      model.stage.layers = {reshape({1, 23}), reshape({23})};
      expect_naive(model, 21, {simd, 2}, random);
      model.stage.layers = {plain(Op::gelu), plain(Op::tanh)};
      expect_naive(model, 21, {simd, 2}, random);
    }
  }
}

TEST_P(ProgramOn, RunsWithoutBiasesAndWithOtherTypesForSomeWeights) {
  Model model = stack({19, 13, 6}, type, Op::relu, true, random);
  for (Layer& layer : model.stage.layers) layer.bias.clear();
  expect_naive(model, 5, {simd, 2}, random);
  for (const Type other : {Type::fp32, Type::fp16, Type::bf16}) {
    model = stack({19, 13, 6}, type, Op::relu, true, random);
    model.tensors["w0"].type = other;
    model.tensors["b1"].type = other;
    expect_naive(model, 5, {simd, 2}, random);
  }
}

TEST_P(ProgramOn, RunsConvolutionsOfAnyShape) {
  const auto up_to = [&](std::size_t most) {
    return std::uniform_int_distribution<std::size_t>(1, most)(random);
  };
  for (int i = 0; i < 20; ++i) {
    const Sizes image{up_to(4), up_to(9), up_to(9)};
    const std::size_t channels = up_to(5), ky = up_to(4), kx = up_to(4);
    const std::size_t py = up_to(ky + 1) - 1, px = up_to(kx + 2) - 1;
    if (image[1] + 2 * py < ky || image[2] + 2 * px < kx) continue;
    const std::size_t sy = up_to(3), sx = up_to(3);
    const std::size_t gy = (image[1] + 2 * py - ky) / sy + 1,
                      gx = (image[2] + 2 * px - kx) / sx + 1;
    // With this much more at its end, the transposed convolution gives the image's size again.
    const std::size_t ey = (image[1] + 2 * py - ky) % sy, ex = (image[2] + 2 * px - kx) % sx;
    Model model;
    model.tensors["w"] = random_tensor(type, {channels, image[0], ky, kx}, random);
    model.tensors["b"] = random_tensor(type, {channels}, random);
    model.tensors["c"] = random_tensor(type, {image[0]}, random);
    model.stage.input.element_shape = model.stage.output.element_shape = image;
    model.stage.layers = {convolution(Op::conv, "w", "b", {sy, sx, py, px, 0, 0}), plain(Op::relu),
                          convolution(Op::conv_transpose, "w", "c", {sy, sx, py, px, ey, ex}),
                          plain(Op::sigmoid)};
    expect_naive(model, up_to(5), {simd, static_cast<int>(up_to(3))}, random);
    model.stage.layers.resize(2);
    model.stage.output.element_shape = {channels, gy, gx};
    expect_naive(model, 2, {simd, 1}, random);
  }
}

TEST_P(ProgramOn, UnfoldsManyWindowsAFewAtATime) {
  // 2,500 windows of 450 numbers a sample; 2 MiB hold some 1,100 of them.
  Model model;
  model.tensors["w"] = random_tensor(type, {3, 50, 3, 3}, random);
  model.stage.input.element_shape = model.stage.output.element_shape = {50, 50, 50};
  model.stage.layers = {convolution(Op::conv, "w", "", {1, 1, 1, 1, 0, 0}), plain(Op::tanh),
                        convolution(Op::conv_transpose, "w", "", {1, 1, 1, 1, 0, 0})};
  expect_naive(model, 2, {simd, 2}, random);
}

TEST_P(ProgramOn, MixesConvolutionsReshapesAndDenseLayers) {
  Model model;
  model.tensors["w"] = random_tensor(type, {4, 2, 3, 3}, random);
  model.tensors["b"] = random_tensor(type, {4}, random);
  model.tensors["v"] = random_tensor(type, {6, 36}, random);
  model.stage.input.element_shape = model.stage.output.element_shape = {2, 6, 6};
  model.stage.layers = {convolution(Op::conv, "w", "b", {2, 2, 1, 1, 0, 0}),
                        reshape({36}),
                        plain(Op::relu),
                        dense("v", ""),
                        dense("v", "", true),
                        plain(Op::gelu),
                        plain(Op::tanh),
                        reshape({4, 3, 3}),
                        convolution(Op::conv_transpose, "w", "", {2, 2, 1, 1, 1, 1})};
  for (const std::size_t batch : {1U, 7U, 70U}) expect_naive(model, batch, {simd, 2}, random);
}

TEST_P(ProgramOn, KeepsNanAndInfinityToTheirSample) {
  const Model model = stack({33, 17, 4}, type, Op::relu, true, random);
  for (const std::size_t batch : {3U, 40U}) {
    std::vector<double> x = random_values(batch * 33, random);
    const std::vector<double> clean = run_stage(model, batch, x, {simd, 2});
    for (const double odd :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      x[33 + 5] = odd;
      const std::vector<double> y = run_stage(model, batch, x, {simd, 2});
      for (std::size_t i = 0; i < y.size(); ++i) {
        if (i / 33 == 1) continue;
        ASSERT_EQ(y[i], clean[i]) << i;
      }
      if (std::isnan(odd)) {
        // of 33 · 17 · 4 products, not one may lose it
        for (std::size_t i = 33; i < 66; ++i) ASSERT_TRUE(std::isnan(y[i])) << i;
      }
    }
  }
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  return "simd" + std::to_string(static_cast<int>(std::get<0>(info.param))) + "_" +
         tiedexport::internal::name_of(std::get<1>(info.param));
}
INSTANTIATE_TEST_SUITE_P(All, ProgramOn,
                         testing::Combine(testing::ValuesIn(kEverySimd),
                                          testing::Values(Type::fp32, Type::fp16, Type::bf16)),
                         name_of_case);

}  // namespace
}  // namespace tiedexport::internal::native
