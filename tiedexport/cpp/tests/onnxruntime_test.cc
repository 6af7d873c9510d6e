// Bundles in ONNX Runtime's library, where one is found: see onnxruntime/library.hpp.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "backend.hpp"
#include "bundle_files.hpp"
#include "naive_stage.hpp"
#include "onnxruntime/library.hpp"

namespace tiedexport::internal {
namespace {

using onnxruntime::kVariable;
using onnxruntime::Library;
using onnxruntime::load_library;

/// Lets the variable name another library, and puts it back.
class Chosen {
 public:
  explicit Chosen(const std::string& file) {
    if (const char* before = std::getenv(kVariable)) before_ = before;
    setenv(kVariable, file.c_str(), 1);
  }
  ~Chosen() {
    if (before_.empty())
      unsetenv(kVariable);
    else
      setenv(kVariable, before_.c_str(), 1);
  }
  Chosen(const Chosen&) = delete;
  Chosen& operator=(const Chosen&) = delete;

 private:
  std::string before_;
};

TEST(OnnxRuntimeLibrary, SaysWhatTheLoaderSaid) {
  const Chosen chosen("/nowhere/libonnxruntime.so.1");
  const Availability found = onnxruntime_backend().availability();
  EXPECT_FALSE(found.available);
  EXPECT_NE(found.reason.find("/nowhere/libonnxruntime.so.1"), std::string::npos) << found.reason;
  EXPECT_NE(found.remedy.find(kVariable), std::string::npos) << found.remedy;
}

TEST(OnnxRuntimeLibrary, RefusesAnotherLibrary) {
  const Chosen chosen("libm.so.6");
  EXPECT_EQ(load_library().reason, "libm.so.6 is no ONNX Runtime library");
}

TEST(OnnxRuntimeLibrary, RefusesOneThatIsTooOldUnasked) {
  const Chosen chosen(TIEDEXPORT_OLD_ONNXRUNTIME);  // asked for its functions, it ends the process
  const Library library = load_library();
  EXPECT_EQ(library.api, nullptr);
  EXPECT_EQ(library.version, "1.21.9");
  EXPECT_NE(library.reason.find("is ONNX Runtime 1.21.9"), std::string::npos) << library.reason;
}

std::shared_ptr<const Bundle> opened(const std::string& path) {
  return std::make_shared<const Bundle>(path, TIEDEXPORT_CHECK_HASH);
}

std::unique_ptr<Backend> session_of(std::shared_ptr<const Bundle> bundle, Type precision) {
  Options options;
  options.precision = precision;
  options.threads = 1;
  return onnxruntime_backend().open(std::move(bundle), options);
}

StoredTensors tensors_of(const Bundle& bundle, Type precision) {
  StoredTensors tensors;
  const auto weights = bundle.weights(precision);
  for (const auto& [name, stored] : weights->tensors()) {
    StoredTensor& tensor = tensors[name] = {stored.type, stored.shape, {}};
    const auto* bytes = static_cast<const std::byte*>(stored.data);
    for (std::size_t i = 0; i < stored.count; ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, bytes + i * size_of(stored.type), size_of(stored.type));
      tensor.values.push_back(value_of(bits, stored.type));
    }
  }
  return tensors;
}

std::vector<float> random_floats(std::size_t count) {
  std::mt19937 random(7);
  const std::vector<double> values = random_values(count, random);
  return {values.begin(), values.end()};
}

class OnnxRuntimeSession : public ::testing::TestWithParam<Type> {
 protected:
  void SetUp() override {
    const Availability found = onnxruntime_backend().availability();
    if (!found.available) GTEST_SKIP() << found.reason << "; " << found.remedy;
  }
};

INSTANTIATE_TEST_SUITE_P(Types, OnnxRuntimeSession, ::testing::Values(Type::fp32, Type::fp16),
                         [](const auto& one) { return std::string(name_of(one.param)); });

TEST_P(OnnxRuntimeSession, ComputesEveryStageIntoTheCallersMemory) {
  for (const int schema : {1, 2}) {
    const auto bundle = opened(testing::data_bundle(schema));
    const auto session = session_of(bundle, GetParam());
    const StoredTensors tensors = tensors_of(*bundle, GetParam());
    const double rounding = GetParam() == Type::fp16 ? std::ldexp(1.0, -11) : 0.0;
    for (const Stage& stage : bundle->manifest().stages) {
      const std::size_t in = stage.input.element_count(), out = stage.output.element_count();
      for (const std::size_t batch : {1U, 7U}) {
        const std::vector<float> x = random_floats(batch * in);
        std::vector<float> y(batch * out + 1, -3.0F);
        session->run(stage, batch, x.data(), y.data());
        EXPECT_EQ(y.back(), -3.0F);
        for (std::size_t sample = 0; sample < batch; ++sample) {
          const std::vector<double> row(&x[sample * in], &x[sample * in] + in);
          const Numbers expected = NaiveStage(stage, tensors, rounding).of_sample(row.data());
          for (std::size_t i = 0; i < out; ++i)
            EXPECT_NEAR(y[sample * out + i], expected.exact[i], expected.bound[i] + rounding)
                << stage.name << " " << sample << " " << i;
        }
      }
    }
  }
}

TEST_P(OnnxRuntimeSession, RunsFromManyThreads) {
  const auto bundle = opened(testing::data_bundle(2));
  const auto session = session_of(bundle, GetParam());
  const Stage& stage = *bundle->manifest().stage("autoencoder");
  const std::vector<float> x = random_floats(5 * stage.input.element_count());
  std::vector<std::vector<float>> outputs(4, std::vector<float>(5 * stage.output.element_count()));
  std::vector<std::thread> threads;
  for (std::vector<float>& y : outputs)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) session->run(stage, 5, x.data(), y.data());
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& y : outputs) EXPECT_EQ(y, outputs[0]);
  EXPECT_NE(outputs[0], std::vector<float>(outputs[0].size()));
}

/// "weights.fp16.safetensors"
std::filesystem::path weights_of(const testing::BundleCopy& copy, Type precision) {
  return copy.path() / (std::string("weights.") + name_of(precision) + ".safetensors");
}

TEST_P(OnnxRuntimeSession, FailsInItsOwnWords) {
  const testing::BundleCopy copy;
  copy.write_listed(std::string("encoder.") + name_of(GetParam()) + ".onnx", "no graph");
  const auto bundle = opened(copy.path());
  EXPECT_REFUSED([&] { session_of(bundle, GetParam()); }, TIEDEXPORT_BACKEND_FAILED, "protobuf");
}

TEST_P(OnnxRuntimeSession, ReadsTheWeightsThatWereMapped) {
  const testing::BundleCopy copy;
  const auto bundle = opened(copy.path());
  const Stage& stage = *bundle->manifest().stage("autoencoder");
  const std::vector<float> x = random_floats(stage.input.element_count());
  std::vector<float> before(stage.output.element_count()), after(before);
  const auto session = session_of(bundle, GetParam());
  session->run(stage, 1, x.data(), before.data());
  // Another file of that name: nobody looks it up again.
  const std::filesystem::path weights = weights_of(copy, GetParam());
  const std::size_t size_bytes = testing::contents(weights).size();
  std::filesystem::remove(weights);
  testing::write(weights, std::string(size_bytes, '\0'));
  session_of(bundle, GetParam())->run(stage, 1, x.data(), after.data());
  EXPECT_EQ(before, after);
  EXPECT_NE(before, std::vector<float>(before.size()));
}

TEST_P(OnnxRuntimeSession, RefusesWeightsThatWereTruncatedSince) {
  const testing::BundleCopy copy;
  const auto bundle = opened(copy.path());
  const auto session = session_of(bundle, GetParam());
  const Stage& stage = *bundle->manifest().stage("encoder");
  std::filesystem::resize_file(weights_of(copy, GetParam()), 8);
  const std::vector<float> x(stage.input.element_count());
  std::vector<float> y(stage.output.element_count());
  EXPECT_REFUSED([&] { session->run(stage, 1, x.data(), y.data()); }, TIEDEXPORT_CORRUPT,
                 "wrong size");
}

TEST(OnnxRuntimeRow, RefusesBf16) {
  const auto bundle = opened(testing::data_bundle(2));
  EXPECT_EQ(onnxruntime_backend().refusal(*bundle, Type::bf16),
            "ONNX Runtime has no bf16 kernels for a CPU");
  EXPECT_EQ(onnxruntime_backend().refusal(*bundle, Type::fp32), "");
}

}  // namespace
}  // namespace tiedexport::internal
