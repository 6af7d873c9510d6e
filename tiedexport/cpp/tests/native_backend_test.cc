#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backend.hpp"
#include "bundle_files.hpp"
#include "naive_stage.hpp"
#include "native/processors.hpp"
#include "native/products.hpp"
#include "stored_model.hpp"

namespace tiedexport::internal {
namespace {

using native::Simd;
using testing::BundleCopy;

std::shared_ptr<const Bundle> bundle_at(const std::string& path) {
  return std::make_shared<Bundle>(path, TIEDEXPORT_CHECK_HASH);
}

std::unique_ptr<Backend> session(const std::shared_ptr<const Bundle>& bundle, Type precision,
                                 int threads = 2, const std::string& simd = "") {
  Options options;
  options.precision = precision;
  options.threads = threads;
  options.simd = simd;
  return native_backend().open(bundle, options);
}

StoredTensors tensors_in(const Bundle& bundle, Type precision) {
  StoredTensors stored;
  const std::shared_ptr<const Weights> weights = bundle.weights(precision);
  for (const auto& [name, tensor] : weights->tensors()) {
    std::vector<double> values;
    for (std::size_t i = 0; i < tensor.count; ++i) {
      std::uint32_t bits = 0;
      const std::size_t size = size_of(tensor.type);
      std::memcpy(&bits, static_cast<const std::byte*>(tensor.data) + i * size, size);
      values.push_back(value_of(bits, tensor.type));
    }
    stored[name] = {tensor.type, tensor.shape, std::move(values)};
  }
  return stored;
}

std::vector<float> random_input(std::size_t count) {
  std::mt19937 random(static_cast<unsigned>(count));
  const std::vector<double> values = random_values(count, random);
  return {values.begin(), values.end()};
}

TEST(NativeBackend, RunsEveryStageOfEveryBundleEverReleased) {
  for (const int schema : {1, 2}) {
    const auto bundle = bundle_at(testing::data_bundle(schema));
    for (const Type precision : bundle->manifest().precisions) {
      const auto backend = session(bundle, precision);
      const StoredTensors tensors = tensors_in(*bundle, precision);
      const double rounding = precision == Type::bf16 ? std::ldexp(1.0, -8) : 0.0;
      for (const Stage& stage : bundle->manifest().stages) {
        const NaiveStage naive(stage, tensors, rounding);
        const std::size_t in = stage.input.element_count(), out = stage.output.element_count();
        for (const std::size_t batch : {1U, 9U, 40U}) {
          const std::vector<float> x = random_input(batch * in);
          const std::vector<double> exact_x(x.begin(), x.end());
          std::vector<float> y(batch * out);
          backend->run(stage, batch, x.data(), y.data());
          for (std::size_t b = 0; b < batch; ++b) {
            const Numbers expected = naive.of_sample(&exact_x[b * in]);
            for (std::size_t i = 0; i < out; ++i)
              ASSERT_NEAR(y[b * out + i], expected.exact[i], expected.bound[i])
                  << stage.name << " of schema " << schema << ", " << name_of(precision);
          }
        }
      }
    }
  }
}

/// A copy of a bundle [6, 4, 2] whose layers are 300, 200 and 100 wide, fp32 only.
class WideBundle : public BundleCopy {
 public:
  WideBundle() {
    std::string manifest = testing::contents(path() / "manifest.json");
    for (const auto& [narrow, wide] : {std::pair{6, 300}, {2, 100}}) {
      const std::string end = "\n          ]";
      replace_all(manifest, "\"batch\",\n            " + std::to_string(narrow) + end,
                  "\"batch\",\n            " + std::to_string(wide) + end);
    }
    manifest =
        testing::replaced(manifest, "\"sample_shape\": [\n    6", "\"sample_shape\": [\n    300");
    testing::write(path() / "manifest.json", testing::signed_again(manifest));
    write_weights({300, 200, 100});
  }

  void write_weights(const std::vector<std::size_t>& widths) const {
    std::mt19937 random(3);
    StoredTensors tensors;
    for (std::size_t i = 0; i < 2; ++i) {
      const std::string name = "layers." + std::to_string(i);
      tensors[name + ".weight"] = random_tensor(Type::fp32, {widths[i + 1], widths[i]}, random);
      tensors[name + ".encoder_bias"] = random_tensor(Type::fp32, {widths[i + 1]}, random);
      tensors[name + ".decoder_bias"] = random_tensor(Type::fp32, {widths[i]}, random);
    }
    const std::vector<std::byte> bytes = safetensors_of(tensors);
    write_listed("weights.fp32.safetensors",
                 {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }

 private:
  static void replace_all(std::string& text, const std::string& from, const std::string& to) {
    ASSERT_NE(text.find(from), std::string::npos) << from;
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
      text.replace(at, from.size(), to);
  }
};

TEST(NativeBackend, GivesManyThreadsTheSameBits) {
  const WideBundle files;
  const auto bundle = bundle_at(files.path());
  const auto backend = session(bundle, Type::fp32, 2);
  const auto alone = session(bundle, Type::fp32, 2);
  std::atomic<int> different{0};
  std::vector<std::thread> callers;
  for (std::size_t caller = 0; caller < 6; ++caller) {
    callers.emplace_back([&, caller] {
      const Stage& stage = bundle->manifest().stages[caller % 3];
      const std::size_t batch = std::size_t{1} << caller;
      const std::vector<float> x = random_input(batch * stage.input.element_count());
      std::vector<float> expected(batch * stage.output.element_count()), y(expected.size());
      alone->run(stage, batch, x.data(), expected.data());
      for (int run = 0; run < 30; ++run) {
        std::fill(y.begin(), y.end(), -1.0F);
        backend->run(stage, batch, x.data(), y.data());
        different += std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)) == 0 ? 0 : 1;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(different.load(), 0);
}

TEST(NativeBackend, OutlivesItsBundle) {
  auto bundle = bundle_at(testing::data_bundle(2));
  const Stage stage = *bundle->manifest().stage("autoencoder");
  const auto backend = session(bundle, Type::fp32);
  bundle.reset();
  const std::vector<float> x(6, 0.5F);
  std::vector<float> y(6, -1.0F);
  backend->run(stage, 1, x.data(), y.data());
  for (const float value : y) EXPECT_TRUE(value > 0.0F && value < 1.0F) << value;
}

TEST(NativeBackend, RunsTheInstructionSetAskedFor) {
  const auto bundle = bundle_at(testing::data_bundle(2));
  for (const Simd simd : native::kEverySimd) {
    if (!native::simd_runs_here(simd)) continue;
    const std::string name = native::name_of(simd);
    EXPECT_EQ(session(bundle, Type::fp32, 1, name)->description(), name + ", 1 thread");
  }
  const std::string best = native::name_of(native::best_simd(Type::fp32));
  EXPECT_EQ(session(bundle, Type::fp32, 3)->description(), best + ", 3 threads");
  EXPECT_REFUSED([&] { session(bundle, Type::fp32, 1, "MMX"); }, TIEDEXPORT_INVALID_ARGUMENT,
                 "expected: ");
  EXPECT_REFUSED([&] { session(bundle, Type::fp32, 1, "MMX"); }, TIEDEXPORT_INVALID_ARGUMENT, best);
}

TEST(NativeBackend, TakesAThreadForEachProcessorUnlessTold) {
  const auto bundle = bundle_at(testing::data_bundle(2));
  const int here = native::processors_allowed();
  EXPECT_GE(here, 1);
  const std::string words = ", " + std::to_string(here) + (here == 1 ? " thread" : " threads");
  EXPECT_NE(session(bundle, Type::fp32, 0)->description().find(words), std::string::npos);
  for (const int threads : {-1, 1025}) {
    EXPECT_REFUSED([&] { session(bundle, Type::fp32, threads); }, TIEDEXPORT_INVALID_ARGUMENT,
                   std::to_string(threads));
  }
}

TEST(NativeBackend, RefusesWeightsThatAreCutWhileItRuns) {
  const WideBundle files;
  const auto bundle = bundle_at(files.path());
  const auto backend = session(bundle, Type::fp32);
  const Stage& stage = *bundle->manifest().stage("encoder");
  const std::vector<float> x(300);
  std::vector<float> y(100);
  backend->run(stage, 1, x.data(), y.data());
  std::filesystem::resize_file(files.path() / "weights.fp32.safetensors", 1000);
  EXPECT_REFUSED([&] { backend->run(stage, 1, x.data(), y.data()); }, TIEDEXPORT_CORRUPT,
                 "weights.fp32.safetensors");
}

TEST(NativeBackend, RefusesWeightsThatDoNotFitTheStages) {
  const WideBundle files;
  files.write_weights({300, 200, 101});
  EXPECT_REFUSED([&] { session(bundle_at(files.path()), Type::fp32); }, TIEDEXPORT_CORRUPT,
                 "[101]");
}

TEST(NativeBackend, RefusesBundlesWhoseLayersItCannotKnow) {
  const BundleCopy files;
  const std::string manifest = testing::contents(files.path() / "manifest.json");
  const std::size_t begin = manifest.find("\"layers\": [");
  const std::size_t end = manifest.find("\n      ]", begin);
  files.alter_manifest(manifest.substr(begin, end - begin), "\"layers\": [");
  const auto bundle = bundle_at(files.path());
  EXPECT_NE(native_backend().refusal(*bundle, Type::fp32).find("no layers"), std::string::npos);
  const auto whole = bundle_at(testing::data_bundle(2));
  EXPECT_EQ(native_backend().refusal(*whole, Type::fp32), "");
}

TEST(NativeBackend, IsAlwaysThere) {
  const BackendRow row = native_backend();
  EXPECT_STREQ(row.name, "native");
  EXPECT_TRUE(row.availability().available);
}

}  // namespace
}  // namespace tiedexport::internal
