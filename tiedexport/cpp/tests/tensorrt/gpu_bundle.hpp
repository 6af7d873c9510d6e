// Bundles of a small tied autoencoder, with plans that the double of TensorRT runs.
#pragma once

#include <string>
#include <vector>

namespace tiedexport::doubles {

constexpr std::size_t kFeatures = 6, kLatent = 3;

/// W [kLatent, kFeatures], row-major: small whole numbers, so that every sum is exact.
std::vector<float> weight();

/// One plan. By default a weight-free one that the double reads and runs.
struct PlanOf {
  std::string stage;               // that it is of; "" in `text` and `bindings` follow from it
  std::string weights = "shared";  // or "baked", "one-plan"
  std::string package = "tensorrt", version, precision = "fp32", options;
  std::vector<int> capabilities = {89};
  int smallest = 1, largest = 8;
  std::string text, bindings;  // "": those of the stage
};

/// Plans of all three stages, by default.
std::vector<PlanOf> plans_of(const std::string& weights, const std::string& version,
                             int smallest = 1, int largest = 8);

/// Writes a bundle into a new directory and returns its path; whoever calls removes it.
std::string write_bundle(const std::vector<PlanOf>& plans);

}  // namespace tiedexport::doubles
