#include "tensorrt/choice.hpp"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <iterator>
#include <set>
#include <vector>

namespace tiedexport::internal::tensorrt {
namespace {

using Plans = std::vector<const Plan*>;

constexpr int kAmpere = 80;
// Fewest copies of a weight on the device first.
constexpr const char* kPreference[] = {"shared", "one-plan", "baked"};

std::size_t preference(const Plan& plan) {
  const auto found = std::find(std::begin(kPreference), std::end(kPreference), plan.weights);
  return static_cast<std::size_t>(found - std::begin(kPreference));
}

/// "10.12.0.36" → {10, 12, 0, 36}; whatever is no number is left out.
std::vector<long> numbers(const std::string& version) {
  std::vector<long> found;
  long number = -1;
  for (const char c : version + ".") {
    if (std::isdigit(static_cast<unsigned char>(c)) != 0 && number < 100000000) {
      number = std::max(number, 0L) * 10 + (c - '0');
    } else if (number >= 0) {
      found.push_back(number);
      number = -1;
    }
  }
  return found;
}

bool serves(const Plan& plan, int compute_capability) {
  if (plan.ampere_or_newer && compute_capability >= kAmpere) return true;
  const auto& built = plan.compute_capabilities;
  return std::find(built.begin(), built.end(), compute_capability) != built.end();
}

/// Whether a library of this version reads a plan: its own, or one made to last its major.
bool readable(const Plan& plan, const std::string& version) {
  if (plan.package_version == version) return true;
  const std::vector<long> built = numbers(plan.package_version), here = numbers(version);
  return plan.version_compatible && !built.empty() && !here.empty() && built[0] == here[0] &&
         built <= here;
}

std::string quoted(const std::string& path) {
  std::string text = "'";
  for (const char c : path) text += c == '\'' ? "'\\''" : std::string(1, c);
  return text + "'";
}

template <class Keep>
Plans those(const Plans& plans, const Keep& keep) {
  Plans kept;
  std::copy_if(plans.begin(), plans.end(), std::back_inserter(kept),
               [&](const Plan* plan) { return keep(*plan); });
  return kept;
}

std::string built_for(const Plans& plans) {
  std::set<int> known;
  for (const Plan* plan : plans) {
    known.insert(plan->compute_capabilities.begin(), plan->compute_capabilities.end());
  }
  std::string text;
  for (const int number : known) text += (text.empty() ? "sm" : ", sm") + std::to_string(number);
  return text.empty() ? "no device that it names" : text;
}

/// Keeps the plans that run there; if there is none, "" has become why.
std::string keep_fitting(Plans* plans, const Target& target, const std::string& again) {
  Plans fitting =
      those(*plans, [&](const Plan& plan) { return serves(plan, target.compute_capability); });
  if (fitting.empty()) {
    return "the plans are for " + built_for(*plans) + ", " + target.device_name + " is sm" +
           std::to_string(target.compute_capability) + ": " + again;
  }
  const auto newest =
      std::max_element(fitting.begin(), fitting.end(), [](const Plan* one, const Plan* other) {
        return numbers(one->package_version) < numbers(other->package_version);
      });
  const std::string wanted = (*newest)->package_version;
  fitting = those(fitting, [&](const Plan& plan) { return readable(plan, target.version); });
  if (fitting.empty()) {
    return "the plans need " + target.package + " " + wanted + ", here is " + target.version +
           ": install that one, or " + again;
  }
  fitting = those(fitting, [](const Plan& plan) { return !plan.stripped; });
  if (fitting.empty()) {
    return "the plans were built with --stripWeights and hold no weights, and sessions do not "
           "refit plans: without that option, " +
           again + "; --weights shared makes small plans too";
  }
  *plans = fitting;
  return "";
}

}  // namespace

Choice choose_plans(const Manifest& manifest, const std::string& bundle, Type precision,
                    const Target& target) {
  const bool rtx = target.package == "tensorrt_rtx";
  const std::string again =
      "tiedexport build " + quoted(bundle) + " --target " +
      (rtx ? "rtx:sm" + std::to_string(target.compute_capability) : target.package);
  Plans usable;
  for (const Plan& plan : manifest.plans) {
    if (plan.package == target.package && plan.precision == precision &&
        preference(plan) < std::size(kPreference)) {
      usable.push_back(&plan);
    }
  }
  Choice choice;
  for (const Stage& stage : manifest.stages) {
    Plans plans = those(usable, [&](const Plan& plan) {
      return plan.stage == stage.name || plan.weights == "one-plan";
    });
    choice.refusal = plans.empty() ? "the bundle has no " + target.package + " plan of its " +
                                         stage.name + " in " + name_of(precision) + ": " + again +
                                         " --precision " + name_of(precision)
                                   : keep_fitting(&plans, target, again);
    if (!choice.refusal.empty()) return choice;
    choice.plans[stage.name] = *std::min_element(
        plans.begin(), plans.end(),
        [](const Plan* one, const Plan* other) { return preference(*one) < preference(*other); });
  }
  return choice;
}

}  // namespace tiedexport::internal::tensorrt
