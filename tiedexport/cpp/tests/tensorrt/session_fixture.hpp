// Sessions of TensorRT's backend on doubles of the driver and of libnvinfer.so.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "backend.hpp"
#include "cuda_double.hpp"
#include "error.hpp"
#include "gpu_bundle.hpp"
#include "nvinfer_double.hpp"

extern "C" int getInferLibMajorVersion() noexcept;

namespace tiedexport::internal {

using doubles::kFeatures;
using doubles::kLatent;
using Values = std::vector<float>;

class TensorRt : public testing::Test {
 protected:
  void SetUp() override {
    *cuda_double() = doubles::CudaDouble{};
    *nvinfer_double() = doubles::NvinferDouble{};
  }

  void TearDown() override {
    EXPECT_EQ(nvinfer_double()->misuse, "");
    EXPECT_EQ(nvinfer_double()->runtimes + nvinfer_double()->engines + nvinfer_double()->contexts,
              0);
    const doubles::CudaDouble& left = *cuda_double();
    EXPECT_TRUE(left.device_memory.empty());
    EXPECT_EQ(left.pinned + left.streams + left.events + left.graphs + left.contexts, 0);
    EXPECT_EQ(left.without_context, 0);
    for (const std::string& path : paths_) std::filesystem::remove_all(path);
  }

  /// What the double of libnvinfer.so says it is.
  static std::string version() { return std::to_string(getInferLibMajorVersion()) + ".1.0.106"; }

  std::shared_ptr<const Bundle> bundle(const std::vector<doubles::PlanOf>& plans) {
    paths_.push_back(doubles::write_bundle(plans));
    return std::make_shared<Bundle>(paths_.back(), TIEDEXPORT_CHECK_HASH);
  }

  std::shared_ptr<const Bundle> bundle(const std::string& weights = "shared", int smallest = 1,
                                       int largest = 8) {
    return bundle(doubles::plans_of(weights, version(), smallest, largest));
  }

  static std::unique_ptr<Backend> open(const std::shared_ptr<const Bundle>& bundle,
                                       int device = 0) {
    Options options;
    options.device = device;
    return tensorrt_backend().open(bundle, options);
  }

  static const Stage& stage(const Bundle& bundle, const std::string& name) {
    return *bundle.manifest().stage(name);
  }

  static Values run(Backend* session, const Bundle& bundle, const std::string& name,
                    const Values& input) {
    const Stage& which = stage(bundle, name);
    const std::size_t rows = input.size() / which.input.element_count();
    Values output(rows * which.output.element_count(), -1);
    session->run(which, rows, input.data(), output.data());
    return output;
  }

  /// Whole numbers, others for each seed.
  static Values numbers(std::size_t count, std::size_t seed = 0) {
    Values values;
    for (std::size_t i = 0; i < count; ++i) {
      values.push_back(static_cast<float>((7 * i + seed) % 11) - 5);
    }
    return values;
  }

  static Values encoded(const Values& x) {
    const Values w = doubles::weight();
    Values z(x.size() / kFeatures * kLatent);
    for (std::size_t i = 0; i < z.size(); ++i) {
      for (std::size_t k = 0; k < kFeatures; ++k) {
        z[i] += x[i / kLatent * kFeatures + k] * w[i % kLatent * kFeatures + k];
      }
    }
    return z;
  }

  static Values decoded(const Values& z) {
    const Values w = doubles::weight();
    Values y(z.size() / kLatent * kFeatures);
    for (std::size_t i = 0; i < y.size(); ++i) {
      for (std::size_t k = 0; k < kLatent; ++k) {
        y[i] += z[i / kFeatures * kLatent + k] * w[k * kFeatures + i % kFeatures];
      }
    }
    return y;
  }

  /// What `act` throws: its status and its words, which hold all of `parts`.
  template <class Act>
  static void expect_error(tiedexport_status status, const std::vector<std::string>& parts,
                           const Act& act) {
    try {
      act();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), status);
      for (const std::string& part : parts) {
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
            << part << " is not in: " << error.what();
      }
    }
  }

 private:
  std::vector<std::string> paths_;
};

}  // namespace tiedexport::internal
