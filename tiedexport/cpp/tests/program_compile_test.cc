#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "error.hpp"
#include "made_layers.hpp"
#include "native/program.hpp"
#include "stored_model.hpp"

namespace tiedexport::internal::native {
namespace {

using Kind = Step::Kind;

Model small(bool tied = true) {
  std::mt19937 random(1);
  return stack({6, 5, 4}, Type::fp32, Op::relu, tied, random);
}

std::vector<Kind> kinds_of(const Model& model) {
  const auto weights = mapped(model.tensors);
  std::vector<Kind> kinds;
  for (const Step& step : compile(model.stage, *weights, Simd::scalar, "test.tied").steps)
    kinds.push_back(step.kind);
  return kinds;
}

TEST(Compile, FusesTheInnermostPair) {
  EXPECT_EQ(kinds_of(small()), (std::vector<Kind>{Kind::encode, Kind::pair, Kind::decode}));
}

TEST(Compile, FusesNoWeightsThatDiffer) {
  Model model = small(false);
  EXPECT_EQ(kinds_of(model), (std::vector<Kind>(4, Kind::encode)));
  model.tensors["v1"].shape = {4, 5};
  model.stage.layers[4].transposed = true;
  EXPECT_EQ(kinds_of(model),
            (std::vector<Kind>{Kind::encode, Kind::encode, Kind::decode, Kind::encode}));
}

TEST(Compile, SeesThroughReshapesButNotThroughASecondActivation) {
  Model model = small();
  std::vector<Layer>& layers = model.stage.layers;
  layers.insert(layers.begin() + 4, {reshape({2, 2}), reshape({4})});
  EXPECT_EQ(kinds_of(model).size(), 3U);
  layers.insert(layers.begin() + 4, plain(Op::tanh));
  EXPECT_EQ(kinds_of(model), (std::vector<Kind>{Kind::encode, Kind::encode, Kind::activate,
                                                Kind::decode, Kind::decode}));
}

TEST(Compile, PutsActivationsAndBiasesWhereTheyBelong) {
  const Model model = small();
  const auto weights = mapped(model.tensors);
  const Program program = compile(model.stage, *weights, Simd::scalar, "test.tied");
  const Step &first = program.steps[0], &pair = program.steps[1], &last = program.steps[2];
  EXPECT_EQ(first.w.data, weights->tensor("w0").data);
  EXPECT_EQ(pair.w.data, weights->tensor("w1").data);
  EXPECT_EQ(last.w.data, weights->tensor("w0").data);
  EXPECT_EQ(first.bias[2], static_cast<float>(model.tensors.at("b0").values[2]));
  EXPECT_EQ(pair.bias[2], static_cast<float>(model.tensors.at("b1").values[2]));
  EXPECT_EQ(pair.out_bias[2], static_cast<float>(model.tensors.at("c1").values[2]));
  EXPECT_EQ(last.bias[2], static_cast<float>(model.tensors.at("c0").values[2]));
  EXPECT_EQ(pair.activation, Activation::relu);
  EXPECT_EQ(pair.out_activation, Activation::relu);
  EXPECT_EQ(last.activation, Activation::sigmoid);
}

struct Damage {
  const char* name;
  std::function<void(Model&)> apply;
  const char* words;  // that the message must hold
};
void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

Layer first_conv(std::array<std::size_t, 6> numbers) {
  return convolution(Op::conv, "k", "", numbers);
}
Layer first_transpose(std::array<std::size_t, 6> numbers) {
  return convolution(Op::conv_transpose, "k", "", numbers);
}
/// Begins with layers that see the input as an image [1, 2, 3].
void begin_with(Model& model, const Layer& layer) {
  model.stage.layers.insert(model.stage.layers.begin(), {reshape({1, 2, 3}), layer});
}

constexpr std::size_t kHuge = std::size_t{1} << 62;

const Damage kDamages[] = {
    {"Input", [](Model& m) { m.stage.input.element_shape = {7}; }, "layer 0 of stage"},
    {"InputRank", [](Model& m) { m.stage.input.element_shape = {1, 6}; }, "got: [1, 6]"},
    {"InputEmpty", [](Model& m) { m.stage.input.element_shape = {0}; }, "input of stage"},
    {"InputHuge", [](Model& m) { m.stage.input.element_shape = {kHuge, 8}; }, "2^40"},
    {"Output", [](Model& m) { m.stage.output.element_shape = {3, 2}; }, "expected: [3, 2]"},
    {"WeightAbsent", [](Model& m) { m.tensors.erase("w1"); }, "w1"},
    {"WeightRank", [](Model& m) { m.tensors["w0"].shape = {5, 6, 1}; }, "2 axes"},
    {"WeightWidth", [](Model& m) { m.tensors["w1"].shape = {5, 4}; }, "weight 'w1'"},
    {"WeightEmpty", [](Model& m) { m.tensors["w1"] = {Type::fp32, {0, 5}, {}}; }, "w1"},
    {"BiasAbsent", [](Model& m) { m.tensors.erase("c1"); }, "c1"},
    {"BiasLength", [](Model& m) { m.tensors["b0"] = m.tensors["c0"]; }, "bias 'b0'"},
    {"BiasRank", [](Model& m) { m.tensors["b0"].shape = {5, 1}; }, "bias 'b0'"},
    {"PairBias", [](Model& m) { m.tensors["c1"] = m.tensors["c0"]; }, "bias 'c1'"},
    {"Reshape", [](Model& m) { m.stage.layers.push_back(reshape({5})); }, "reshape"},
    {"ReshapeWraps", [](Model& m) { m.stage.layers.push_back(reshape({kHuge, 4, 6})); }, "2^40"},
    {"ConvOfVector",
     [](Model& m) {
       m.stage.layers.insert(m.stage.layers.begin(), first_conv({1, 1, 0, 0, 0, 0}));
     },
     "[channels, height, width]"},
    {"ConvChannels",
     [](Model& m) {
       m.tensors["k"].shape = {1, 2, 2, 1};
       begin_with(m, first_conv({1, 1, 0, 0, 0, 0}));
     },
     "weight 'k'"},
    {"ConvKernel",
     [](Model& m) {
       m.tensors["k"].shape = {1, 1, 4, 1};
       begin_with(m, first_conv({1, 1, 0, 0, 0, 0}));
     },
     "larger than its padded image"},
    {"ConvRank",
     [](Model& m) { begin_with(m, convolution(Op::conv, "w0", "", {1, 1, 0, 0, 0, 0})); },
     "4 axes"},
    {"ConvStride", [](Model& m) { begin_with(m, first_conv({1, 0, 0, 0, 0, 0})); }, "stride"},
    {"ConvHugePad", [](Model& m) { begin_with(m, first_conv({1, 1, kHuge * 2, 0, 0, 0})); },
     "2^20"},
    {"TransposePads", [](Model& m) { begin_with(m, first_transpose({1, 1, 2, 0, 0, 0})); },
     "padding leaves nothing"},
    {"TransposeHugeStride",
     [](Model& m) { begin_with(m, first_transpose({1, kHuge, 0, 0, 0, 0})); }, "2^20"},
    {"TransposeHugeOutput",
     [](Model& m) { begin_with(m, first_transpose({1, 1, 0, 0, kHuge, 0})); }, "2^20"},
    {"TransposeLargeOutput",
     [](Model& m) { begin_with(m, first_transpose({1 << 20, 1 << 20, 0, 0, 0, 0})); }, "2^40"},
};

class CompileRefuses : public testing::TestWithParam<Damage> {};

TEST_P(CompileRefuses, WhatContradictsItself) {
  Model model = small();
  model.tensors["k"] = {Type::fp32, {1, 1, 2, 2}, {1, 2, 3, 4}};
  GetParam().apply(model);
  const auto weights = mapped(model.tensors);
  try {
    compile(model.stage, *weights, Simd::scalar, "test.tied");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), TIEDEXPORT_CORRUPT);
    EXPECT_NE(std::string(error.what()).find(GetParam().words), std::string::npos) << error.what();
  }
}
INSTANTIATE_TEST_SUITE_P(All, CompileRefuses, testing::ValuesIn(kDamages),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace tiedexport::internal::native
