// Which of a bundle's plans a device and a TensorRT library can run.
#pragma once

#include <map>
#include <string>

#include "manifest.hpp"

namespace tiedexport::internal::tensorrt {

/// What plans are to run on: the package as the manifest names it ("tensorrt", "tensorrt_rtx"),
/// the library's version, and the device.
struct Target {
  std::string package, version, device_name;
  int compute_capability = 0;
};

/// For each stage the plan with fewest copies of the weights on the device, or why there is none.
struct Choice {
  std::map<std::string, const Plan*> plans;  // by stage; they live as long as the manifest
  std::string refusal;                       // with the command that helps; "" if there are plans
};

/// `bundle` is its path, for the words.
Choice choose_plans(const Manifest& manifest, const std::string& bundle, Type precision,
                    const Target& target);

}  // namespace tiedexport::internal::tensorrt
