// A manifest is refused before anything acts on it: damaged, newer, or at odds with itself.
#include "manifest.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bundle_files.hpp"
#include "release.hpp"

namespace tiedexport::internal {
namespace {

using testing::contents;
using testing::data_bundle;
using testing::replaced;
using testing::signed_again;

std::string manifest_text(int schema = 2) {
  return contents(data_bundle(schema) + "/manifest.json");
}

Manifest parsed(const std::string& text) { return parse_manifest(text, "here"); }

constexpr const char* no_plans = "\"plans\": []";

/// The list of plans with one engine; `more` are fields after the first ones.
std::string plans_with(const std::string& more) {
  return R"("plans": [{"file": "golden.npz", "stage": "encoder", "precision": "fp16",
    "target": "rtx", "package": "tensorrt_rtx", "package_version": "1.7",
    "compute_capabilities": [86, 89], "weights": "shared", "graph_sha256": "",
    "bindings": [{"name": "input", "role": "input", "dtype": "fp32", "shape": [-1, 6]}])" +
         more + "}]";
}

TEST(ManifestTest, ReadsWhatARuntimeNeedsOfEverySchema) {
  for (const int schema : {1, 2}) {
    const Manifest manifest = parsed(manifest_text(schema));
    EXPECT_EQ(manifest.schema, schema);
    EXPECT_EQ(manifest.name, "schema-" + std::to_string(schema));
    EXPECT_EQ(manifest.family, "autoencoder");
    EXPECT_EQ(manifest.io_type, Type::fp32);
    EXPECT_EQ(manifest.golden, "golden.npz");
    EXPECT_EQ(manifest.precisions, (std::vector<Type>{Type::fp32, Type::fp16, Type::bf16}));
    EXPECT_EQ(manifest.weights.at(Type::bf16), "weights.bf16.safetensors");
    EXPECT_EQ(manifest.graphs.at(Type::fp16).at("decoder"), "decoder.fp16.onnx");
    EXPECT_EQ(manifest.files.size(), 13u);
    EXPECT_EQ(manifest.files.at("golden.npz").size_bytes, 761u);
    ASSERT_EQ(manifest.stages.size(), 3u);
    const Stage* const decoder = manifest.stage("decoder");
    ASSERT_NE(decoder, nullptr);
    EXPECT_EQ(decoder->input.name, "code");
    EXPECT_EQ(decoder->input.element_shape, (std::vector<std::size_t>{2}));
    EXPECT_EQ(decoder->output.element_count(), 6u);
    ASSERT_EQ(decoder->layers.size(), 4u);
    EXPECT_EQ(decoder->layers[0].op, Op::dense);
    EXPECT_EQ(decoder->layers[0].weight, "layers.1.weight");
    EXPECT_EQ(decoder->layers[0].bias, "layers.1.decoder_bias");
    EXPECT_TRUE(decoder->layers[0].transposed);
    EXPECT_EQ(decoder->layers[3].op, Op::sigmoid);
    EXPECT_EQ(manifest.stage("classifier"), nullptr);
  }
}

TEST(ManifestTest, KeepsTheOrderOfPrecisions) {
  const std::string text = replaced(manifest_text(), "\"fp32\": \"weights.fp32.safetensors\",", "");
  const std::string last =
      R"("bf16": "weights.bf16.safetensors", "fp32": "weights.fp32.safetensors")";
  const Manifest manifest =
      parsed(signed_again(replaced(text, R"("bf16": "weights.bf16.safetensors")", last)));
  EXPECT_EQ(manifest.precisions, (std::vector<Type>{Type::fp16, Type::bf16, Type::fp32}));
}

TEST(ManifestTest, ReadsEngines) {
  const std::string options = R"(, "options": {"profiles": [[1, 4, 9], [1, 1, 2]], "refit": true})";
  const Manifest manifest =
      parsed(signed_again(replaced(manifest_text(), no_plans, plans_with(options))));
  ASSERT_EQ(manifest.plans.size(), 1u);
  const Plan& plan = manifest.plans[0];
  EXPECT_EQ(plan.compute_capabilities, (std::vector<int>{86, 89}));
  ASSERT_EQ(plan.profiles.size(), 2u);
  EXPECT_EQ(plan.profiles[0].typical, 4u);
  EXPECT_EQ(plan.profiles[0].largest, 9u);
  ASSERT_EQ(plan.bindings.size(), 1u);
  EXPECT_EQ(plan.bindings[0].shape, (std::vector<std::int64_t>{-1, 6}));

  const Manifest unsaid = parsed(signed_again(replaced(manifest_text(), no_plans, plans_with(""))));
  EXPECT_EQ(unsaid.plans[0].profiles.at(0).largest, 256u);

  const std::string one = plans_with(R"(, "profile": [1, 2, 3])");
  const Manifest first = parsed(signed_again(replaced(manifest_text(1), no_plans, one)));
  EXPECT_EQ(first.plans[0].profiles.at(0).largest, 3u);
}

TEST(ManifestTest, ReadsLayersOfConvolutions) {
  const std::string conv = R"("op": "conv", "strides": [2, 3], "pads": [1, 0],
      "output_padding": [0, 1], "shape": [4, 5])";
  const Manifest manifest =
      parsed(signed_again(replaced(manifest_text(), R"("op": "dense")", conv)));
  const Layer& layer = manifest.stages[0].layers[0];
  EXPECT_EQ(layer.op, Op::conv);
  EXPECT_EQ(layer.strides, (std::array<std::size_t, 2>{2, 3}));
  EXPECT_EQ(layer.pads, (std::array<std::size_t, 2>{1, 0}));
  EXPECT_EQ(layer.output_padding, (std::array<std::size_t, 2>{0, 1}));
  EXPECT_EQ(layer.shape, (std::vector<std::size_t>{4, 5}));
  EXPECT_EQ(manifest.stages[0].layers[1].strides, (std::array<std::size_t, 2>{1, 1}));
}

TEST(ManifestTest, ReadsTypesThatAWeightKeeps) {
  const Manifest manifest = parsed(signed_again(replaced(
      manifest_text(), R"("kept": {})", R"("kept": {"fp16": {"layers.0.weight": "fp32"}})")));
  EXPECT_EQ(manifest.kept.at(Type::fp16).at("layers.0.weight"), Type::fp32);
}

TEST(ManifestTest, EveryCutAndEveryFlippedByteIsDamage) {
  const std::string text = manifest_text();
  for (std::size_t at = 0; at < text.size(); at += 97) {
    std::string flipped = text;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    EXPECT_REFUSED([&] { parsed(flipped); }, TIEDEXPORT_CORRUPT, "damaged or was edited");
    EXPECT_REFUSED([&] { parsed(text.substr(0, at)); }, TIEDEXPORT_CORRUPT, "damaged or was");
  }
  EXPECT_REFUSED([&] { parsed(text + "\n"); }, TIEDEXPORT_CORRUPT, "damaged or was edited");
}

TEST(ManifestTest, ANewerSchemaIsToldFromDamageWhateverFieldsItHas) {
  const std::string text =
      signed_again("{\"schema\": 3, \"generator\": \"tiedexport 9.1.0\", \"novel\": []");
  EXPECT_REFUSED([&] { parsed(text); }, TIEDEXPORT_UNSUPPORTED, "newer tiedexport");
  EXPECT_REFUSED([&] { parsed(text); }, TIEDEXPORT_UNSUPPORTED, "pip install 'tiedexport>=9.1.0'");
}

TEST(ManifestTest, AGeneratorThatIsNoReleaseOfOursNeverReachesACommand) {
  for (const std::string generator : {"tiedexport 9.1'; rm -rf ~; '", "tiedexport 9 1",
                                      "other 9.1.0", "9.1.0", "", "tiedexport 1.", "tiedexport .1",
                                      "tiedexport 1.2x", "tiedexport 1.2rc", "tiedexport 1.2rc1b2"})
    EXPECT_EQ(release_named_by(generator), "") << generator;
  for (const std::string version : {"9", "9.1.0", "1.2a1", "1.2b3", "10.20.30rc4"})
    EXPECT_EQ(release_named_by("tiedexport " + version), version);
  const std::string text = signed_again("{\"schema\": 3, \"generator\": \"tiedexport 9'; x\"");
  EXPECT_REFUSED([&] { parsed(text); }, TIEDEXPORT_UNSUPPORTED, "pip install --upgrade");
}

TEST(ManifestTest, ASchemaThatNeverWasIsNotCalledNewer) {
  for (const std::string schema : {"0", "-1"}) {
    const std::string body = "{\"schema\": " + schema + ", \"generator\": \"tiedexport 9.1.0\"";
    EXPECT_REFUSED([&] { parsed(signed_again(body)); }, TIEDEXPORT_CORRUPT, "never was");
  }
}

struct Alteration {
  const char* name;
  std::string from, to;
  const char* words;
};

class AlteredManifestTest : public ::testing::TestWithParam<Alteration> {};

TEST_P(AlteredManifestTest, IsRefusedAlthoughItIsSigned) {
  const std::string text = replaced(manifest_text(), GetParam().from, GetParam().to);
  EXPECT_REFUSED([&] { parsed(signed_again(text)); }, TIEDEXPORT_CORRUPT, GetParam().words);
}

const std::string six = "\"batch\",\n            6";
const std::string encoder_stage = "\"name\": \"encoder\"";

const Alteration alterations[] = {
    {"InvalidUtf8", "\"family\": \"auto", "\"family\": \"\xff", "not valid"},
    {"UnknownField", "\"training\": null", "\"training\": null, \"novel\": 1",
     "'novel' is unknown"},
    {"MissingField", "\"ties\"", "\"knots\"", "the field ties is missing"},
    {"FieldTwice", "\"training\": null", "\"training\": null, \"name\": \"x\"", "twice"},
    {"UnknownFieldOfALayer", "\"op\": \"relu\"", "\"op\": \"relu\", \"alpha\": 1", "unknown"},
    {"UnknownOperator", "\"op\": \"relu\"", "\"op\": \"selu\"", "unknown operator: 'selu'"},
    {"UnknownType", "\"io_dtype\": \"fp32\"", "\"io_dtype\": \"fp8\"", "got 'fp8' at $.io_dtype"},
    {"UnknownPrecision", "\"fp16\": \"weights", "\"int8\": \"weights", "got 'int8'"},
    {"TextForASize", "\"size_bytes\": 761", "\"size_bytes\": \"761\"", "expected an integer"},
    {"FractionForASize", "\"size_bytes\": 761", "\"size_bytes\": 761.0", "expected an integer"},
    {"NegativeSize", "\"size_bytes\": 761", "\"size_bytes\": -761", "negative"},
    {"HugeSize", "\"size_bytes\": 761", "\"size_bytes\": 18446744073709551616", "64 bits"},
    {"UnknownFieldOfAPlan", no_plans, plans_with(", \"x\": 1"), "'x' is unknown"},
    {"ProfileOfTwo", no_plans, plans_with(R"(, "options": {"profiles": [[1, 2]]})"), "three batch"},
    {"ProfileBelowZero", no_plans, plans_with(R"(, "options": {"profiles": [[-1, 2, 3]]})"),
     "no engine has"},
    {"UnknownOption", no_plans, plans_with(R"(, "options": {"x": 1})"), "'x' is unknown"},
    {"OptionOfAnotherKind", no_plans, plans_with(R"(, "options": {"refit": 1})"), "a boolean"},
    {"SchemaOneField", no_plans, plans_with(R"(, "profile": [1, 2, 3])"), "'profile' is unknown"},
    {"EngineOfAnUnknownStage", no_plans, replaced(plans_with(""), "encoder", "x"), "unknown stage"},
    {"EngineWithoutADigest", no_plans, replaced(plans_with(""), "golden.npz", "e.plan"),
     "files without a digest"},
    {"GraphOfAnEngineWithoutADigest", no_plans, plans_with(R"(, "graph": "g.onnx")"), "'g.onnx'"},
    {"GoldenWithoutADigest", "\"golden\": \"golden.npz\"", "\"golden\": \"other.npz\"",
     "'other.npz'"},
    {"TwoStagesOfOneName", encoder_stage, "\"name\": \"decoder\"", "two of one name"},
    {"GraphsOfOtherStages", "\"encoder\": \"encoder.fp16.onnx\"", "\"x\": \"encoder.fp16.onnx\"",
     "graphs in fp16 of"},
    {"GraphsOfOtherPrecisions", ",\n    \"bf16\": \"weights.bf16.safetensors\"", "",
     "different precisions"},
    {"AnotherSample", "\"sample_shape\": [\n    6", "\"sample_shape\": [\n    7", "does not hold"},
    {"NegativeSample", "\"sample_shape\": [\n    6", "\"sample_shape\": [\n    -6",
     "does not hold"},
    {"TwoInputs", "\"inputs\": [",
     R"("inputs": [{"name": "x", "dtype": "fp32", "shape": ["b", 6]},)", "exactly one input"},
    {"NamedAxis", six, "\"batch\", \"wide\"", "batch axis alone is dynamic"},
    {"FixedBatch", six, "8, 6", "batch axis alone is dynamic"},
    {"NegativeAxis", six, "\"batch\", -6", "batch axis alone is dynamic"},
    {"EmptyAxis", six, "\"batch\", 0", "batch axis alone is dynamic"},
    {"NoAxes", six, "", "batch axis alone is dynamic"},
    {"GiantAxis", six, "\"batch\", 9223372036854775807", "batch axis alone is dynamic"},
    {"OverflowingAxes", six, "\"batch\", 4294967296, 4294967296, 6", "batch axis alone is dynamic"},
    {"NineAxes", six, "\"batch\", 6,1,1,1,1,1,1,1,1", "more than 8 axes"},
    {"NoWeight", "\"weight\": \"layers.0.weight\",", "", "has no weight"},
    {"NullWeight", "\"weight\": \"layers.0.weight\"", "\"weight\": null", "has no weight"},
    {"EmptyWeight", "\"weight\": \"layers.0.weight\"", "\"weight\": \"\"", "has no weight"},
    {"StrideOfZero", "\"op\": \"relu\"", "\"op\": \"relu\", \"strides\": [0, 1]", "takes steps"},
    {"ThreeStrides", "\"op\": \"relu\"", "\"op\": \"relu\", \"strides\": [1, 1, 1]", "takes steps"},
    {"NegativePads", "\"op\": \"relu\"", "\"op\": \"relu\", \"pads\": [-1, 1]", "takes steps"},
    {"HugePads", "\"op\": \"relu\"", "\"op\": \"relu\", \"pads\": [1, 9223372036854775807]",
     "takes steps"},
    {"OverflowingReshape", "\"op\": \"relu\"",
     "\"op\": \"relu\", \"shape\": [4294967296, 4294967296]", "shape that nothing has"},
    {"OpenReshape", "\"op\": \"relu\"", "\"op\": \"relu\", \"shape\": [-1]", "that nothing has"},
    {"KeptForAnUnknownWeight", R"("kept": {})", R"("kept": {"fp16": {"x": "fp32"}})",
     "other types"},
};

INSTANTIATE_TEST_SUITE_P(Manifests, AlteredManifestTest, ::testing::ValuesIn(alterations),
                         [](const auto& altered) { return altered.param.name; });

class UnsafeNameTest : public ::testing::TestWithParam<std::string> {};

TEST_P(UnsafeNameTest, IsRefused) {
  const std::string text =
      replaced(manifest_text(), "\"files\": {",
               "\"files\": {\"" + GetParam() + R"(": {"size_bytes": 0, "sha256": ""},)");
  EXPECT_REFUSED([&] { parsed(signed_again(text)); }, TIEDEXPORT_CORRUPT, "could leave the bundle");
}

INSTANTIATE_TEST_SUITE_P(Names, UnsafeNameTest,
                         ::testing::Values("", ".", "..", "../outside", "a/../../outside",
                                           "/etc/passwd", "a//b", "./a", "a/", "a/.", "a\\\\b",
                                           "c:a", "a\\u0000b", "..\\u002f.."));

}  // namespace
}  // namespace tiedexport::internal
