// manifest.json as it is written, before its parts were held against each other.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "json.hpp"
#include "manifest.hpp"

namespace tiedexport::internal {

struct Place;

struct AxisRecord {
  bool is_dynamic = false;
  std::int64_t size = 0;
};

struct SpecRecord {
  std::string name;
  Type type = Type::fp32;
  std::vector<AxisRecord> shape;
};

struct LayerRecord {
  Op op = Op::dense;
  std::optional<std::string> weight, bias;
  bool transposed = false;
  std::vector<std::int64_t> strides, pads, output_padding, shape;
  std::string output;
};

struct StageRecord {
  std::string name;
  std::vector<SpecRecord> inputs, outputs;
  std::vector<LayerRecord> layers;
};

struct ManifestDocument {
  Manifest manifest;  // all but its stages
  std::vector<std::int64_t> sample_shape;
  std::vector<StageRecord> stages;
};

/// Reads every field of a manifest of `schema`; throws JsonFault where one is missing, unknown or
/// of another kind.
ManifestDocument document_from(const Json& json, int schema);

/// The fields of a stage, and those of a plan: parts of the above.
StageRecord stage_record_from(const Json& json, const Place& place);
Plan plan_from(const Json& json, const Place& place, int schema);

/// "fp32", "fp16" or "bf16".
Type type_named(const std::string& name, const Place& place);
Type type_from(const Json& json, const Place& place);

/// What the kinds of the fields cannot tell, in words; none if the manifest is sound.
std::vector<std::string> contradictions(const ManifestDocument& document);

/// The stages of a document without contradictions.
std::vector<Stage> stages_from(const std::vector<StageRecord>& records);

}  // namespace tiedexport::internal
