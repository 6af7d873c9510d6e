// Which plan a device and a library get, as tiedexport/runtimes/tensorrt.py chooses.
#include <gtest/gtest.h>

#include "tensorrt/choice.hpp"

namespace tiedexport::internal::tensorrt {
namespace {

const Target kAda{"tensorrt", "11.1.0.106", "An Ada", 89};

Plan plan(const std::string& stage, const std::string& weights = "shared") {
  Plan made;
  made.file = stage + "." + weights + ".plan";
  made.stage = stage;
  made.weights = weights;
  made.package = "tensorrt";
  made.package_version = "11.1.0.106";
  made.precision = Type::fp16;
  made.compute_capabilities = {89};
  return made;
}

Manifest manifest(const std::vector<Plan>& plans) {
  Manifest made;
  for (const char* name : {"encoder", "decoder"}) {
    Stage stage;
    stage.name = name;
    made.stages.push_back(stage);
  }
  made.plans = plans;
  return made;
}

std::string refusal(const std::vector<Plan>& plans, const Target& target = kAda) {
  return choose_plans(manifest(plans), "it's.tied", Type::fp16, target).refusal;
}

std::string refusal_of_both(const Plan& like, const Target& target = kAda) {
  Plan encoder = like, decoder = like;
  encoder.stage = "encoder";
  decoder.stage = "decoder";
  return refusal({encoder, decoder}, target);
}

TEST(Choice, PrefersFewestCopiesOnTheDevice) {
  const Manifest made = manifest({plan("encoder", "baked"), plan("autoencoder", "one-plan"),
                                  plan("decoder"), plan("encoder", "of a later release")});
  const Choice choice = choose_plans(made, "a.tied", Type::fp16, kAda);
  EXPECT_EQ(choice.refusal, "");
  ASSERT_EQ(choice.plans.size(), 2U);
  EXPECT_EQ(choice.plans.at("encoder"), &made.plans[1]);
  EXPECT_EQ(choice.plans.at("decoder"), &made.plans[2]);
}

TEST(Choice, NamesTheStageWithoutAPlanAndTheCommand) {
  EXPECT_EQ(refusal({plan("encoder")}),
            "the bundle has no tensorrt plan of its decoder in fp16: tiedexport build "
            "'it'\\''s.tied' --target tensorrt --precision fp16");
  Plan other = plan("encoder");
  other.precision = Type::bf16;
  EXPECT_NE(refusal({other, plan("decoder")}).find("of its encoder in fp16"), std::string::npos);
  other = plan("encoder");
  other.package = "tensorrt_rtx";
  EXPECT_NE(refusal({other, plan("decoder")}).find("of its encoder in fp16"), std::string::npos);
}

TEST(Choice, BuildsForTheDeviceWithRtx) {
  const Target rtx{"tensorrt_rtx", "1.7.1.116", "An Ada", 89};
  EXPECT_NE(refusal({}, rtx).find("--target rtx:sm89"), std::string::npos);
}

TEST(Choice, RefusesAnotherDevice) {
  Plan turing = plan("");
  turing.compute_capabilities = {86, 75};
  EXPECT_EQ(refusal_of_both(turing),
            "the plans are for sm75, sm86, An Ada is sm89: tiedexport build 'it'\\''s.tied' "
            "--target tensorrt");
  turing.ampere_or_newer = true;
  EXPECT_EQ(refusal_of_both(turing), "");
  Target volta = kAda;
  volta.compute_capability = 70;
  EXPECT_NE(refusal_of_both(turing, volta), "");
}

TEST(Choice, RefusesAnotherVersionUnlessThePlanLasts) {
  Plan older = plan("");
  older.package_version = "11.0.3.9";
  EXPECT_EQ(refusal_of_both(older),
            "the plans need tensorrt 11.0.3.9, here is 11.1.0.106: install that one, or tiedexport "
            "build 'it'\\''s.tied' --target tensorrt");
  older.version_compatible = true;
  EXPECT_EQ(refusal_of_both(older), "");
  older.package_version = "11.2.0.1";  // it lasts, but not backwards
  EXPECT_NE(refusal_of_both(older), "");
  older.package_version = "10.16.0.1";
  EXPECT_NE(refusal_of_both(older), "");
  older.package_version = "";
  EXPECT_NE(refusal_of_both(older), "");
}

TEST(Choice, TakesWhatFitsAmongWhatDoesNot) {
  Plan elsewhere = plan("encoder"), newer = plan("encoder"), stripped = plan("encoder");
  elsewhere.compute_capabilities = {75};
  newer.package_version = "11.2.0.0";
  stripped.stripped = true;
  const Manifest made =
      manifest({elsewhere, newer, stripped, plan("encoder", "baked"), plan("decoder")});
  const Choice choice = choose_plans(made, "a.tied", Type::fp16, kAda);
  ASSERT_EQ(choice.refusal, "");
  EXPECT_EQ(choice.plans.at("encoder"), &made.plans[3]);
}

TEST(Choice, RefusesPlansWithoutWeightsInAnyPlace) {
  Plan stripped = plan("", "baked");
  stripped.stripped = true;
  EXPECT_NE(refusal_of_both(stripped).find("--stripWeights"), std::string::npos);
}

}  // namespace
}  // namespace tiedexport::internal::tensorrt
