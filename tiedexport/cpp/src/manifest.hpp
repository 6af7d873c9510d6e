// What a bundle says of itself: the fields of manifest.json that a runtime needs, checked.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tiedexport::internal {

enum class Type : std::uint8_t { fp32, fp16, bf16 };

/// Bytes an element: 4, 2, 2.
constexpr std::size_t size_of(Type type) { return type == Type::fp32 ? 4 : 2; }
/// "fp32", "fp16", "bf16".
const char* name_of(Type type);

/// A stage's input or output; the batch axis, the first and only dynamic one, is left out.
struct TensorSpec {
  std::string name;
  Type type = Type::fp32;
  std::vector<std::size_t> element_shape;

  std::size_t element_count() const;  // of one sample; checked not to overflow
};

enum class Op : std::uint8_t { dense, conv, conv_transpose, relu, gelu, tanh, sigmoid, reshape };

/// One step of a stage, as in tiedexport/spec.py: `dense` is y = x Wᵀ + b, or y = x W + b where
/// `transposed`; the convolutions are ONNX's over two axes with symmetric pads, without groups or
/// dilations; `reshape` keeps the batch axis. `weight` and `bias` name tensors of the weights
/// file ("" for none).
struct Layer {
  Op op = Op::dense;
  std::string weight, bias;
  bool transposed = false;
  std::array<std::size_t, 2> strides{1, 1}, pads{0, 0}, output_padding{0, 0};
  std::vector<std::size_t> shape;
  std::string output;
};

struct Stage {
  std::string name;
  TensorSpec input, output;
  std::vector<Layer> layers;
};

/// One binding of an engine: `role` is "input", "output" or "weight".
struct Binding {
  std::string name, role;
  Type type = Type::fp32;
  std::vector<std::int64_t> shape;  // -1: the batch
};

struct Profile {
  std::size_t smallest = 1, typical = 1, largest = 1;  // batch
};

/// One engine: see PlanRecord in tiedexport/manifest.py. `weights` is "shared", "baked",
/// "one-plan".
struct Plan {
  std::string file, stage, target, package, package_version, weights;
  Type precision = Type::fp16;
  // Of its options (absent: false): "version_compatible", "hardware_compatibility" == "ampere+",
  // "strip_weights".
  bool version_compatible = false, ampere_or_newer = false, stripped = false;
  std::vector<int> compute_capabilities;
  std::vector<Profile> profiles;
  std::vector<Binding> bindings;
  std::string graph;  // the ONNX file that the builder parsed; "" in schema 1
};

struct FileRecord {
  std::uint64_t size_bytes = 0;
  std::string sha256;  // lower-case hex
};

struct Manifest {
  int schema = 0;
  std::string generator, name, family;
  Type io_type = Type::fp32;
  std::vector<Stage> stages;
  std::vector<Type> precisions;                               // those with weights, in file order
  std::map<Type, std::string> weights;                        // precision → weights file
  std::map<Type, std::map<std::string, std::string>> graphs;  // precision → stage → ONNX file
  std::map<Type, std::map<std::string, Type>> kept;  // precision → weight → its other type
  std::vector<Plan> plans;
  std::string golden;
  std::map<std::string, FileRecord> files;

  const Stage* stage(std::string_view stage_name) const;  // nullptr if there is none
};

/// Checks the digest, the schema (1 and 2), every field and file name, and that they agree, as
/// decode_manifest of tiedexport/manifest.py does. Throws Error (CORRUPT, or UNSUPPORTED for a
/// newer schema). `where` is for messages.
Manifest parse_manifest(std::string_view bytes, const std::string& where);

}  // namespace tiedexport::internal
