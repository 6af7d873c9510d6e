// The stages of a manifest: how they are written, and what they become.
#include <array>
#include <cstddef>
#include <utility>

#include "json_fields.hpp"
#include "manifest_document.hpp"
#include "words.hpp"

namespace tiedexport::internal {
namespace {

constexpr std::array<std::pair<const char*, Op>, 8> ops{{{"dense", Op::dense},
                                                         {"conv", Op::conv},
                                                         {"conv_transpose", Op::conv_transpose},
                                                         {"relu", Op::relu},
                                                         {"gelu", Op::gelu},
                                                         {"tanh", Op::tanh},
                                                         {"sigmoid", Op::sigmoid},
                                                         {"reshape", Op::reshape}}};

Op op_from(const Json& json, const Place& place) {
  const std::string& name = text_of(json, place);
  for (const auto& [known, op] : ops)
    if (name == known) return op;
  refuse_value("an unknown operator: " + quoted(name), place);
}

AxisRecord axis_from(const Json& json, const Place& place) {
  if (std::holds_alternative<std::string>(json.value)) return {true, 0};
  return {false, integer_of(json, place)};
}

SpecRecord spec_from(const Json& json, const Place& place) {
  Fields fields(json, place);
  SpecRecord spec;
  spec.name = fields.need("name", text_of);
  spec.type = fields.need("dtype", type_from);
  spec.shape = fields.need(
      "shape", [](const Json& shape, const Place& at) { return list_of(shape, at, axis_from); });
  fields.refuse_unknown();
  return spec;
}

std::vector<SpecRecord> specs_from(const Json& json, const Place& place) {
  return list_of(json, place, spec_from);
}

std::optional<std::string> name_or_null(const Json& json, const Place& place) {
  if (std::holds_alternative<std::nullptr_t>(json.value)) return std::nullopt;
  return text_of(json, place);
}

LayerRecord layer_from(const Json& json, const Place& place) {
  Fields fields(json, place);
  LayerRecord layer;
  layer.op = fields.need("op", op_from);
  layer.weight = fields.get("weight", name_or_null, layer.weight);
  layer.bias = fields.get("bias", name_or_null, layer.bias);
  layer.transposed = fields.get("transposed", boolean_of, false);
  layer.strides = fields.get("strides", integers_of, layer.strides);
  layer.pads = fields.get("pads", integers_of, layer.pads);
  layer.output_padding = fields.get("output_padding", integers_of, layer.output_padding);
  layer.shape = fields.get("shape", integers_of, layer.shape);
  layer.output = fields.get("output", text_of, layer.output);
  fields.refuse_unknown();
  return layer;
}

TensorSpec tensor_spec(const SpecRecord& record) {
  TensorSpec spec{record.name, record.type, {}};
  for (std::size_t i = 1; i < record.shape.size(); ++i)
    spec.element_shape.push_back(static_cast<std::size_t>(record.shape[i].size));
  return spec;
}

void set_axes(std::array<std::size_t, 2>& axes, const std::vector<std::int64_t>& given) {
  for (std::size_t i = 0; i < given.size(); ++i) axes[i] = static_cast<std::size_t>(given[i]);
}

Layer layer_of(const LayerRecord& record) {
  Layer layer;
  layer.op = record.op;
  layer.weight = record.weight.value_or("");
  layer.bias = record.bias.value_or("");
  layer.transposed = record.transposed;
  set_axes(layer.strides, record.strides);
  set_axes(layer.pads, record.pads);
  set_axes(layer.output_padding, record.output_padding);
  for (const std::int64_t size : record.shape)
    layer.shape.push_back(static_cast<std::size_t>(size));
  layer.output = record.output;
  return layer;
}

}  // namespace

StageRecord stage_record_from(const Json& json, const Place& place) {
  Fields fields(json, place);
  StageRecord stage;
  stage.name = fields.need("name", text_of);
  stage.inputs = fields.need("inputs", specs_from);
  stage.outputs = fields.need("outputs", specs_from);
  const auto layers = [](const Json& list, const Place& at) {
    return list_of(list, at, layer_from);
  };
  stage.layers = fields.get("layers", layers, stage.layers);
  fields.refuse_unknown();
  return stage;
}

std::vector<Stage> stages_from(const std::vector<StageRecord>& records) {
  std::vector<Stage> stages;
  for (const StageRecord& record : records) {
    Stage stage{record.name, tensor_spec(record.inputs[0]), tensor_spec(record.outputs[0]), {}};
    for (const LayerRecord& layer : record.layers) stage.layers.push_back(layer_of(layer));
    stages.push_back(std::move(stage));
  }
  return stages;
}

}  // namespace tiedexport::internal
