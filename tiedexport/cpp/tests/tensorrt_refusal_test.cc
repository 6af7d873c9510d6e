// What TensorRT's backend refuses, and what it says when TensorRT refuses.
#include "tensorrt/session_fixture.hpp"

namespace tiedexport::internal {
namespace {

TEST_F(TensorRt, RefusesALibraryOfAnotherMajor) {
  nvinfer_double()->major = 9;
  const Availability availability = tensorrt_backend().availability();
  EXPECT_FALSE(availability.available);
  EXPECT_NE(availability.reason.find(" is version 9.1.0.106"), std::string::npos);
  EXPECT_EQ(nvinfer_double()->deserialised, 0);
}

TEST_F(TensorRt, RefusesADriverThatIsOlderThanTheLibrary) {
  cuda_double()->cuda = 12080;
  const Availability availability = tensorrt_backend().availability();
  EXPECT_FALSE(availability.available);
  EXPECT_NE(availability.reason.find("up to CUDA 12.8, and libnvinfer.so."), std::string::npos);
  EXPECT_NE(availability.reason.find(" uses CUDA 13.0"), std::string::npos);
  EXPECT_NE(availability.remedy.find("update the NVIDIA driver"), std::string::npos);
}

TEST_F(TensorRt, AsksTheDriverBeforeTheLibrary) {
  const auto opened = bundle();
  cuda_double()->devices = 0;
  expect_error(TIEDEXPORT_UNAVAILABLE, {"the CUDA driver shows no device", "nvidia-smi"},
               [&] { open(opened); });
  EXPECT_EQ(tensorrt_backend().refusal(*opened, Type::fp32), "the CUDA driver shows no device");
  EXPECT_EQ(nvinfer_double()->asked_for_cuda, 0);
}

TEST_F(TensorRt, RefusesPlansThatDoNotFit) {
  cuda_double()->capability = 75;
  const auto opened = bundle();
  const std::string reason = tensorrt_backend().refusal(*opened, Type::fp32);
  EXPECT_NE(reason.find("the plans are for sm89, A double of a GPU is sm75"), std::string::npos);
  expect_error(TIEDEXPORT_UNSUPPORTED, {reason}, [&] { open(opened); });
  cuda_double()->capability = 89;
  EXPECT_NE(tensorrt_backend().refusal(*opened, Type::bf16), "");
}

TEST_F(TensorRt, ReadsWhatPlansServeFromTheManifest) {
  auto plans = doubles::plans_of("baked", std::to_string(getInferLibMajorVersion()) + ".0.0.1");
  for (auto& plan : plans) {
    plan.options = R"("version_compatible": true, "hardware_compatibility": "ampere+")";
    plan.capabilities = {80};
  }
  const auto opened = bundle(plans);
  EXPECT_EQ(tensorrt_backend().refusal(*opened, Type::fp32), "");
  const auto session = open(opened);
  EXPECT_EQ(nvinfer_double()->host_code_allowed, 3);
  for (auto& plan : plans) plan.options += R"(, "strip_weights": true)";
  EXPECT_NE(tensorrt_backend().refusal(*bundle(plans), Type::fp32).find("--stripWeights"),
            std::string::npos);
}

TEST_F(TensorRt, RefusesADeviceThatIsNotThere) {
  const auto opened = bundle();
  expect_error(TIEDEXPORT_INVALID_ARGUMENT, {"no such device", "1", "0 to 0"},
               [&] { open(opened, 1); });
  expect_error(TIEDEXPORT_INVALID_ARGUMENT, {"-1"}, [&] { open(opened, -1); });
}

TEST_F(TensorRt, SaysInItsWordsWhyAPlanDoesNotLoad) {
  auto plans = doubles::plans_of("shared", version());
  plans[1].text = "no plan";
  const auto opened = bundle(plans);
  expect_error(TIEDEXPORT_BACKEND_FAILED,
               {"TensorRT does not load the plan", "plans/decoder1.plan",
                "got: the plan has no magic tag\n", "tiedexport build"},
               [&] { open(opened); });
}

TEST_F(TensorRt, SaysInItsWordsWhyThereIsNoRuntime) {
  const auto opened = bundle();
  nvinfer_double()->makes_runtimes = false;
  expect_error(TIEDEXPORT_BACKEND_FAILED, {"makes no runtime", "CUDA initialization failure"},
               [&] { open(opened); });
}

TEST_F(TensorRt, RecoversFromACallThatFailed) {
  const auto opened = bundle();
  const auto session = open(opened);
  const Values x = numbers(2 * kFeatures);
  const auto call = [&] { return run(session.get(), *opened, "encoder", x); };
  nvinfer_double()->makes_contexts = false;
  expect_error(TIEDEXPORT_BACKEND_FAILED, {"no memory for a context", " are free"}, call);
  nvinfer_double()->makes_contexts = true;
  nvinfer_double()->runs = false;
  expect_error(TIEDEXPORT_BACKEND_FAILED, {"could not enqueue", "the double was told not to run"},
               call);
  nvinfer_double()->runs = true;
  for (int again = 0; again < 3; ++again) EXPECT_EQ(call(), encoded(x));
}

TEST_F(TensorRt, SaysThatTheDeviceIsFull) {
  const auto opened = bundle();
  cuda_double()->memory_bytes = 100;
  expect_error(TIEDEXPORT_OUT_OF_MEMORY, {"the weights", "of the device's 100 bytes, 100 are free"},
               [&] { open(opened); });
  cuda_double()->memory_bytes = 560;
  const auto session = open(opened);
  const Values x = numbers(kFeatures);
  expect_error(TIEDEXPORT_OUT_OF_MEMORY, {"bytes"},
               [&] { run(session.get(), *opened, "encoder", x); });
  cuda_double()->memory_bytes = 1 << 20;
  EXPECT_EQ(run(session.get(), *opened, "encoder", x), encoded(x));
}

TEST_F(TensorRt, RefusesAPlanThatIsNotWhatTheManifestSays) {
  auto plans = doubles::plans_of("baked", version());
  const std::string good = "tensor code out fp32 -1 3\nprofile 0 input 1 8\n";
  const auto refuse = [&](const std::string& text, tiedexport_status status,
                          const std::string& words) {
    plans[0].text = text;
    const auto opened = bundle(plans);
    expect_error(status, {words, "plans/encoder0.plan"}, [&] { open(opened); });
  };
  refuse("tensor input in fp16 -1 6\n" + good, TIEDEXPORT_BACKEND_FAILED, "the type of input");
  refuse("tensor inputs in fp32 -1 6\n" + good, TIEDEXPORT_BACKEND_FAILED, "in their tensors");
  refuse("tensor input in fp32 -1 5\n" + good, TIEDEXPORT_CORRUPT, "does not compute the encoder");
  refuse("tensor input in fp32 -1 6\ntensor code out fp32 -1 3\nprofile 0 input 9 8\n",
         TIEDEXPORT_BACKEND_FAILED, "profile 0 takes 9 to 8 rows");
  refuse("tensor input in fp32 -1 6\ntensor code out fp32 -1 3\n", TIEDEXPORT_BACKEND_FAILED,
         "no profile");
}

TEST_F(TensorRt, RefusesWeightsThatTheBundleDoesNotHave) {
  auto plans = doubles::plans_of("shared", version());
  plans[0].bindings =
      R"({"name": "input", "role": "input", "dtype": "fp32", "shape": [-1, 6]},
         {"name": "code", "role": "output", "dtype": "fp32", "shape": [-1, 3]},
         {"name": "W", "role": "weight", "dtype": "fp32", "shape": [6, 3]})";
  const auto opened = bundle(plans);
  expect_error(TIEDEXPORT_CORRUPT, {"got: fp32[3, 6]", "expected: fp32[6, 3]"},
               [&] { open(opened); });
}

TEST_F(TensorRt, RefusesHalvesThatCannotIdle) {
  auto plans = doubles::plans_of("one-plan", version());
  plans[0].text =
      "tensor input in fp32 -1 6\ntensor code out fp32 -1 3\ntensor code_in in fp32 -1 3\n"
      "tensor output out fp32 -1 6\nprofile 0 input 1 8\nprofile 0 code_in 0 8\n";
  const auto opened = bundle(plans);
  expect_error(TIEDEXPORT_BACKEND_FAILED, {"profile 0 takes 1 to 8 rows"}, [&] { open(opened); });
}

}  // namespace
}  // namespace tiedexport::internal
