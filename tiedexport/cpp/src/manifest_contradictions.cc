// What the kinds of a manifest's fields cannot tell: fields that readers combine without looking
// again. The words are those of tiedexport/manifest.py, which knows all but the sizes.
#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "manifest_document.hpp"
#include "tiedexport/tiedexport.h"
#include "words.hpp"

namespace tiedexport::internal {
namespace {

using Faults = std::vector<std::string>;

// So that a sample's bytes and an index into it cannot overflow, whatever is computed of them.
constexpr std::int64_t largest_sample = std::int64_t{1} << 48;
constexpr std::int64_t largest_step = std::numeric_limits<std::int32_t>::max();

/// The product of positive sizes; nothing where one is not positive or the product is too large.
std::optional<std::int64_t> sample_size(const std::vector<std::int64_t>& shape) {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) {
    if (size < 1 || size > largest_sample / product) return std::nullopt;
    product *= size;
  }
  return product;
}

std::optional<std::int64_t> sample_size(const SpecRecord& spec) {
  std::vector<std::int64_t> element;
  for (std::size_t i = 0; i < spec.shape.size(); ++i) {
    if (spec.shape[i].is_dynamic != (i == 0)) return std::nullopt;
    if (i > 0) element.push_back(spec.shape[i].size);
  }
  return spec.shape.empty() ? std::nullopt : sample_size(element);
}

template <class Map>
std::vector<typename Map::key_type> keys_of(const Map& table) {
  std::vector<typename Map::key_type> keys;
  for (const auto& entry : table) keys.push_back(entry.first);
  return keys;
}

bool needs_weight(Op op) { return op == Op::dense || op == Op::conv || op == Op::conv_transpose; }

/// A step over the two axes of a convolution; none given is a default.
bool is_step(const std::vector<std::int64_t>& step, std::int64_t smallest) {
  if (step.size() != 2 && !step.empty()) return false;
  return std::all_of(step.begin(), step.end(),
                     [&](std::int64_t n) { return n >= smallest && n <= largest_step; });
}

void find_in_layer(const LayerRecord& layer, const std::string& stage, Faults& faults) {
  if (needs_weight(layer.op) && layer.weight.value_or("").empty())
    faults.push_back("a layer of stage " + stage + " has no weight");
  if (!is_step(layer.strides, 1) || !is_step(layer.pads, 0) || !is_step(layer.output_padding, 0))
    faults.push_back("a layer of stage " + stage + " takes steps that no convolution has");
  if (!sample_size(layer.shape))
    faults.push_back("a layer of stage " + stage + " makes a shape that nothing has");
}

void find_in_spec(const SpecRecord& spec, const StageRecord& stage,
                  const std::vector<std::int64_t>& sample_shape, Faults& faults) {
  const std::optional<std::int64_t> size = sample_size(spec);
  if (!size)
    faults.push_back(spec.name +
                     ": the batch axis alone is dynamic, and the first; other sizes are positive");
  else if (spec.shape.size() > 1 + TIEDEXPORT_MAX_RANK)
    faults.push_back(spec.name + " has more than " + std::to_string(TIEDEXPORT_MAX_RANK) +
                     " axes behind the batch");
  else if (stage.name == "autoencoder" && size != sample_size(sample_shape))
    faults.push_back(spec.name + " does not hold a sample of the shape that the bundle names");
}

void find_in_stage(const StageRecord& stage, const ManifestDocument& document, Faults& faults) {
  if (stage.inputs.size() != 1 || stage.outputs.size() != 1)
    faults.push_back("stage " + stage.name + " has not exactly one input and one output");
  for (const auto* specs : {&stage.inputs, &stage.outputs})
    for (const SpecRecord& spec : *specs) find_in_spec(spec, stage, document.sample_shape, faults);
  for (const LayerRecord& layer : stage.layers) find_in_layer(layer, stage.name, faults);
}

void find_in_graphs(const Manifest& manifest, const std::set<std::string>& stages, Faults& faults) {
  if (manifest.weights.empty() || keys_of(manifest.graphs) != keys_of(manifest.weights))
    faults.push_back("weights and graphs of different precisions, or none");
  for (const auto& [type, graphs] : manifest.graphs) {
    const std::vector<std::string> names = keys_of(graphs);
    if (!std::equal(names.begin(), names.end(), stages.begin(), stages.end()))
      faults.push_back(std::string("graphs in ") + name_of(type) + " of " +
                       joined_with_commas(names) + ", stages " + joined_with_commas(stages));
  }
}

void find_in_kept(const ManifestDocument& document, Faults& faults) {
  std::set<std::string> weights;
  for (const StageRecord& stage : document.stages)
    for (const LayerRecord& layer : stage.layers)
      if (layer.weight) weights.insert(*layer.weight);
  for (const auto& [type, kept] : document.manifest.kept) {
    const bool known = std::all_of(kept.begin(), kept.end(), [&](const auto& entry) {
      return weights.count(entry.first) > 0;
    });
    if (document.manifest.weights.count(type) == 0 || !known)
      faults.push_back(std::string("other types in ") + name_of(type) + " for " +
                       joined_with_commas(keys_of(kept)));
  }
}

}  // namespace

std::vector<std::string> contradictions(const ManifestDocument& document) {
  Faults faults;
  const Manifest& manifest = document.manifest;
  std::set<std::string> stages;
  for (const StageRecord& stage : document.stages) stages.insert(stage.name);
  if (stages.empty() || stages.size() != document.stages.size())
    faults.push_back("no stage, or two of one name");
  find_in_graphs(manifest, stages, faults);
  for (const StageRecord& stage : document.stages) find_in_stage(stage, document, faults);
  for (const Plan& plan : manifest.plans)
    if (stages.count(plan.stage) == 0 || manifest.weights.count(plan.precision) == 0)
      faults.push_back(plan.file + " is of an unknown stage or precision");
  find_in_kept(document, faults);
  return faults;
}

}  // namespace tiedexport::internal
