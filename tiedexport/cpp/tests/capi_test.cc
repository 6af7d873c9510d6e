// The C interface from many threads at once; what it refuses, tests/consumers/c has.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

#include "tiedexport/tiedexport.h"
#include "tiedexport/tiedexport.hpp"

namespace tiedexport {
namespace {

const std::string path = std::string(TIEDEXPORT_TEST_DATA) + "/schema-2.tied";

std::vector<float> samples(std::size_t batch) {
  std::vector<float> values(6 * batch);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 17) / 17.0F;
  return values;
}

Options with_threads(int threads) {
  Options options;
  options.backend = "native";
  options.threads = threads;
  return options;
}

/// Calls `part` from `count` threads at once.
template <class Part>
void at_once(int count, const Part& part) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&, i] { part(i); });
  for (std::thread& thread : threads) thread.join();
}

TEST(Capi, OneSessionGivesManyThreadsTheSameBits) {
  Session session(Bundle(path), with_threads(2));
  std::array<std::vector<float>, 4> expected;
  for (std::size_t i = 0; i < expected.size(); ++i)
    expected[i] = session.reconstruct(samples(3 * i));
  std::atomic<int> differing{0};
  at_once(4, [&](int i) {
    const auto& mine = expected[static_cast<std::size_t>(i)];
    const std::vector<float> input = samples(mine.size() / 6);
    for (int round = 0; round < 50; ++round) differing += session.reconstruct(input) != mine;
  });
  EXPECT_EQ(differing, 0);
}

TEST(Capi, SessionsComeAndGoWhileOthersRun) {
  const Bundle bundle(path);
  const std::vector<float> input = samples(2);
  const std::vector<float> expected = Session(bundle, with_threads(1)).reconstruct(input);
  std::atomic<int> differing{0};
  at_once(4, [&](int i) {
    for (int round = 0; round < 10; ++round) {
      const Bundle own(path);
      Session session(i % 2 == 0 ? bundle : own, with_threads(1));
      differing += session.reconstruct(input) != expected;
    }
  });
  EXPECT_EQ(differing, 0);
}

TEST(Capi, AThreadReadsItsOwnErrorWhileOthersFail) {
  const Bundle bundle(path);
  std::atomic<int> foreign{0};
  at_once(4, [&](int i) {
    const std::string name = "stage-" + std::to_string(i);
    for (int round = 0; round < 200; ++round) {
      tiedexport_stage stage;
      tiedexport_stage_named(bundle.get(), name.c_str(), &stage);
      foreign += std::string(tiedexport_last_error()).find(name) == std::string::npos;
    }
  });
  EXPECT_EQ(foreign, 0);
}

TEST(Capi, EveryPrecisionOfTheOldestBundleRuns) {
  const Bundle bundle(std::string(TIEDEXPORT_TEST_DATA) + "/schema-1.tied");
  const std::size_t width = static_cast<std::size_t>(bundle.stage("encoder").input.shape[0]);
  const std::vector<float> input(3 * width, 0.5F);
  std::vector<float> of_fp32;
  for (const std::string& precision : bundle.precisions()) {
    Options options = with_threads(1);
    options.precision = precision;
    const std::vector<float> output = Session(bundle, options).reconstruct(input);
    if (precision == "fp32") of_fp32 = output;
    ASSERT_EQ(output.size(), of_fp32.size());
    for (std::size_t i = 0; i < output.size(); ++i) EXPECT_NEAR(output[i], of_fp32[i], 2e-2F);
  }
}

}  // namespace
}  // namespace tiedexport
