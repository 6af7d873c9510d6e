// TensorRT's backend on host memory.
#include <thread>

#include "tensorrt/session_fixture.hpp"

namespace tiedexport::internal {
namespace {

TEST_F(TensorRt, ComputesEveryStage) {
  const auto opened = bundle();
  EXPECT_TRUE(tensorrt_backend().availability().available);
  EXPECT_EQ(tensorrt_backend().availability().version, version() + ", A double of a GPU");
  EXPECT_EQ(tensorrt_backend().refusal(*opened, Type::fp32), "");
  const auto session = open(opened);
  EXPECT_EQ(session->description(), "TensorRT " + version() + " on A double of a GPU (sm89)");
  const Values x = numbers(5 * kFeatures), z = encoded(x);
  EXPECT_EQ(run(session.get(), *opened, "encoder", x), z);
  EXPECT_EQ(run(session.get(), *opened, "decoder", z), decoded(z));
  EXPECT_EQ(run(session.get(), *opened, "autoencoder", x), decoded(z));
}

TEST_F(TensorRt, KeepsTheWeightsOnTheDeviceOnce) {
  constexpr std::size_t size_bytes = (1 + kLatent * kFeatures) * sizeof(float);
  const auto opened = bundle();
  {
    const auto one = open(opened), other = open(opened);
    EXPECT_EQ(nvinfer_double()->engines, 6);
    EXPECT_EQ(cuda_double()->device_memory.size(), 1U);
    EXPECT_EQ(cuda_double()->uploaded_bytes, size_bytes);
  }
  EXPECT_TRUE(cuda_double()->device_memory.empty());
  const auto again = open(opened);
  EXPECT_EQ(cuda_double()->uploaded_bytes, 2 * size_bytes);
}

TEST_F(TensorRt, OutlivesWhatItCameFrom) {
  auto opened = bundle();
  const std::weak_ptr<const Bundle> watched = opened;
  const auto session = open(opened);
  opened.reset();
  ASSERT_FALSE(watched.expired());
  const Values x = numbers(kFeatures);
  EXPECT_EQ(run(session.get(), *watched.lock(), "encoder", x), encoded(x));
}

TEST_F(TensorRt, UploadsNothingForBakedPlans) {
  const auto opened = bundle("baked");
  const auto session = open(opened);
  EXPECT_TRUE(cuda_double()->device_memory.empty());
  EXPECT_EQ(run(session.get(), *opened, "encoder", {1, 2, 3, 4, 5, 6}), (Values{2, 4, 6}));
}

TEST_F(TensorRt, RunsBothHalvesOfOnePlan) {
  const auto opened = bundle("one-plan");
  const auto session = open(opened);
  EXPECT_EQ(nvinfer_double()->deserialised, 1);
  const Values x = {1, 2, 3, 4, 5, 6};
  EXPECT_EQ(run(session.get(), *opened, "encoder", x), (Values{2, 4, 6}));
  EXPECT_EQ(run(session.get(), *opened, "decoder", {1, 2, 3}), (Values{3, 6, 9, 3, 6, 9}));
  for (int call = 0; call < 3; ++call) {  // the third one launches what the second captured
    EXPECT_EQ(run(session.get(), *opened, "autoencoder", x), (Values{6, 12, 18, 6, 12, 18}));
  }
  EXPECT_EQ(cuda_double()->launches, 2);
}

TEST_F(TensorRt, CutsBatchesThatNoProfileHolds) {
  const auto opened = bundle();
  const auto session = open(opened);
  const Values x = numbers(21 * kFeatures);
  EXPECT_EQ(run(session.get(), *opened, "encoder", x), encoded(x));
  EXPECT_EQ(nvinfer_double()->executions, 3);
}

TEST_F(TensorRt, FillsBatchesUpThatNoProfileStartsWith) {
  const auto opened = bundle("shared", 4);
  const auto session = open(opened);
  for (const std::size_t rows : std::vector<std::size_t>{1, 3, 4, 2}) {
    const Values x = numbers(rows * kFeatures, rows);
    EXPECT_EQ(run(session.get(), *opened, "encoder", x), encoded(x));
  }
}

TEST_F(TensorRt, TakesTheNarrowestProfile) {
  auto plans = doubles::plans_of("baked", version());
  plans[0].text =
      "tensor input in fp32 -1 6\ntensor code out fp32 -1 3\nprofile 0 input 1 8\n"
      "profile 1 input 1 2\nscale input code 2\n";
  const auto opened = bundle(plans);
  const auto session = open(opened);
  run(session.get(), *opened, "encoder", numbers(2 * kFeatures));
  EXPECT_EQ(nvinfer_double()->contexts, 1);
  run(session.get(), *opened, "encoder", numbers(3 * kFeatures));
  EXPECT_EQ(nvinfer_double()->contexts, 2);
}

TEST_F(TensorRt, LaunchesAGraphFromTheSecondCallOn) {
  const auto opened = bundle();
  const auto session = open(opened);
  int expected_captures = 0;
  for (const std::size_t rows : std::vector<std::size_t>{2, 3, 2}) {
    ++expected_captures;
    for (std::size_t call = 0; call < 4; ++call) {
      const Values x = numbers(rows * kFeatures, call);
      EXPECT_EQ(run(session.get(), *opened, "encoder", x), encoded(x));
    }
    EXPECT_EQ(cuda_double()->captures, expected_captures);
    EXPECT_EQ(cuda_double()->launches, 3 * expected_captures);
    EXPECT_EQ(cuda_double()->graphs, 1);
  }
}

TEST_F(TensorRt, RunsOnWithoutAGraphAndSaysWhy) {
  const auto opened = bundle();
  const auto session = open(opened);
  nvinfer_double()->captures = false;
  for (std::size_t call = 0; call < 4; ++call) {
    const Values x = numbers(2 * kFeatures, call);
    EXPECT_EQ(run(session.get(), *opened, "encoder", x), encoded(x));
  }
  EXPECT_EQ(cuda_double()->captures, 1);
  EXPECT_EQ(cuda_double()->launches, 0);
  const std::string description = session->description();
  EXPECT_NE(description.find("encoder without a CUDA graph: "), std::string::npos) << description;
  EXPECT_NE(description.find("the double was told not to run"), std::string::npos) << description;
  EXPECT_EQ(description.find("decoder"), std::string::npos) << description;
}

TEST_F(TensorRt, RunsOnWhereTheDriverMakesNoGraph) {
  const auto opened = bundle();
  const auto session = open(opened);
  cuda_double()->capture_end_code = 901;
  for (std::size_t call = 0; call < 3; ++call) {
    const Values x = numbers(2 * kFeatures, call);
    EXPECT_EQ(run(session.get(), *opened, "encoder", x), encoded(x));
  }
  EXPECT_NE(session->description().find("(901)"), std::string::npos) << session->description();
}

TEST_F(TensorRt, ServesManyThreads) {
  const auto opened = bundle();
  const auto session = open(opened);
  std::vector<std::thread> threads;
  for (std::size_t index = 0; index < 4; ++index) {
    threads.emplace_back([&, index] {
      for (std::size_t call = 0; call < 50; ++call) {
        const Values x = numbers((1 + (index + call) % 10) * kFeatures, call);
        EXPECT_EQ(run(session.get(), *opened, index % 2 == 0 ? "encoder" : "autoencoder", x),
                  index % 2 == 0 ? encoded(x) : decoded(encoded(x)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace tiedexport::internal
