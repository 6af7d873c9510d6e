#include "gpu_bundle.hpp"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "sha256.hpp"

namespace tiedexport::doubles {
namespace {

using Files = std::map<std::string, std::string>;

const std::string kWidths[] = {std::to_string(kFeatures), std::to_string(kLatent)};

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

std::string spec(const std::string& name, const std::string& width) {
  return R"({"name": ")" + name + R"(", "dtype": "fp32", "shape": ["batch", )" + width + "]}";
}

struct Words {
  std::string name, input, output, layers, steps;
  std::string width_in, width_out;
};

const std::vector<Words>& stages() {
  static const std::string encode = R"({"op": "dense", "weight": "W"})";
  static const std::string decode = R"({"op": "dense", "weight": "W", "transposed": true})";
  static const std::vector<Words> all = {
      {"encoder", "input", "code", encode, "dense input code W plain\n", kWidths[0], kWidths[1]},
      {"decoder", "code", "output", decode, "dense code output W transposed\n", kWidths[1],
       kWidths[0]},
      {"autoencoder", "input", "output", encode + ", " + decode,
       "dense input middle W plain\ndense middle output W transposed\n", kWidths[0], kWidths[0]}};
  return all;
}

const Words& stage_named(const std::string& name) {
  for (const Words& stage : stages()) {
    if (stage.name == name) return stage;
  }
  return stages().back();
}

std::string profile(const std::string& input, int least, int most) {
  return "profile 0 " + input + " " + std::to_string(least) + " " + std::to_string(most) + "\n";
}

/// Both halves, of which one idles.
std::string halves_text(const PlanOf& plan) {
  return "tensor input in fp32 -1 6\ntensor code out fp32 -1 3\ntensor code_in in fp32 -1 3\n"
         "tensor output out fp32 -1 6\n" +
         profile("input", 0, plan.largest) + profile("code_in", 0, plan.largest) +
         "scale input code 2\nscale code_in output 3\n";
}

std::string text_of(const PlanOf& plan) {
  if (!plan.text.empty()) return plan.text;
  if (plan.weights == "one-plan") return halves_text(plan);
  const Words& stage = stage_named(plan.stage);
  std::string text = "tensor " + stage.input + " in fp32 -1 " + stage.width_in + "\ntensor " +
                     stage.output + " out fp32 -1 " + stage.width_out + "\n" +
                     profile(stage.input, plan.smallest, plan.largest);
  if (plan.weights == "baked") return text + "scale " + stage.input + " " + stage.output + " 2\n";
  // What is between two layers is no binding; the double gives it a place of its own.
  if (plan.stage == "autoencoder") text += "hidden middle 3\n";
  return text + "tensor W in fp32 3 6\n" + stage.steps;
}

std::string binding(const std::string& name, const std::string& role, const std::string& shape) {
  return R"({"name": ")" + name + R"(", "role": ")" + role + R"(", "dtype": "fp32", "shape": [)" +
         shape + "]}";
}

std::string bindings_of(const PlanOf& plan) {
  if (!plan.bindings.empty()) return plan.bindings;
  if (plan.weights == "one-plan") {
    return joined({binding("input", "input", "-1, 6"), binding("code", "output", "-1, 3"),
                   binding("code_in", "input", "-1, 3"), binding("output", "output", "-1, 6")});
  }
  const Words& stage = stage_named(plan.stage);
  std::vector<std::string> all = {binding(stage.input, "input", "-1, " + stage.width_in),
                                  binding(stage.output, "output", "-1, " + stage.width_out)};
  if (plan.weights == "shared") all.push_back(binding("W", "weight", "3, 6"));
  return joined(all);
}

std::string file_of(const PlanOf& plan, std::size_t index) {
  return "plans/" + plan.stage + std::to_string(index) + ".plan";
}

std::string record_of(const PlanOf& plan, std::size_t index) {
  std::vector<std::string> capabilities;
  for (const int number : plan.capabilities) capabilities.push_back(std::to_string(number));
  return R"({"file": ")" + file_of(plan, index) + R"(", "stage": ")" + plan.stage +
         R"(", "precision": ")" + plan.precision + R"(", "target": "tensorrt", "package": ")" +
         plan.package + R"(", "package_version": ")" + plan.version +
         R"(", "compute_capabilities": [)" + joined(capabilities) + R"(], "weights": ")" +
         plan.weights + R"(", "bindings": [)" + bindings_of(plan) +
         R"(], "graph_sha256": "", "options": {)" + plan.options + "}}";
}

std::string safetensors() {
  std::vector<float> values = weight();
  values.insert(values.begin(), 0.5F);  // of another weight, after which W is not aligned
  std::string header = R"({"A":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                       R"("W":{"dtype":"F32","shape":[3,6],"data_offsets":[4,76]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header +
         std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

Files files_of(const std::vector<PlanOf>& plans) {
  Files files = {{"golden.npz", "golden"}};
  for (const std::string& precision : {std::string("fp32"), std::string("fp16")}) {
    files["weights." + precision + ".safetensors"] = safetensors();
    for (const Words& stage : stages()) files[stage.name + "." + precision + ".onnx"] = "graph";
  }
  for (std::size_t i = 0; i < plans.size(); ++i) files[file_of(plans[i], i)] = text_of(plans[i]);
  return files;
}

std::string stages_json() {
  std::vector<std::string> all;
  for (const Words& stage : stages()) {
    all.push_back(R"({"name": ")" + stage.name + R"(", "inputs": [)" +
                  spec(stage.input, stage.width_in) + R"(], "outputs": [)" +
                  spec(stage.output, stage.width_out) + R"(], "layers": [)" + stage.layers + "]}");
  }
  return joined(all);
}

std::string graphs_json(const std::string& precision) {
  std::vector<std::string> all;
  for (const Words& stage : stages()) {
    all.push_back(quoted(stage.name) + ": " + quoted(stage.name + "." + precision + ".onnx"));
  }
  return "{" + joined(all) + "}";
}

std::string manifest(const std::vector<PlanOf>& plans, const Files& files) {
  std::vector<std::string> records, listed;
  for (std::size_t i = 0; i < plans.size(); ++i) records.push_back(record_of(plans[i], i));
  for (const auto& [name, content] : files) {
    listed.push_back(quoted(name) + R"(: {"size_bytes": )" + std::to_string(content.size()) +
                     R"(, "sha256": ")" + internal::sha256_hex(content) + R"("})");
  }
  const std::string body =
      R"({"schema": 2, "generator": "tiedexport 0.1.0", "created": "", "name": "small",
 "family": "autoencoder", "config": {}, "sample_shape": [6], "io_dtype": "fp32", "opset": 18,
 "parameter_count": 18, "ties": [], "golden": "golden.npz", "tolerances": [], "training": null,
 "versions": {}, "weights": {"fp32": "weights.fp32.safetensors",
 "fp16": "weights.fp16.safetensors"}, "stages": [)" +
      stages_json() + R"(], "graphs": {"fp32": )" + graphs_json("fp32") + R"(, "fp16": )" +
      graphs_json("fp16") + R"(}, "plans": [)" + joined(records) + R"(], "files": {)" +
      joined(listed) + "}";
  return body + ",\n  \"digest\": \"" + internal::sha256_hex(body) + "\"\n}\n";
}

}  // namespace

std::vector<float> weight() {
  std::vector<float> values;
  for (std::size_t i = 0; i < kLatent * kFeatures; ++i) {
    values.push_back(static_cast<float>(i % 5) - 2);
  }
  return values;
}

std::vector<PlanOf> plans_of(const std::string& weights, const std::string& version, int smallest,
                             int largest) {
  std::vector<PlanOf> plans;
  for (const Words& stage : stages()) {
    PlanOf plan;
    plan.stage = stage.name;
    plan.weights = weights;
    plan.version = version;
    plan.smallest = smallest;
    plan.largest = largest;
    if (weights != "one-plan" || stage.name == "autoencoder") plans.push_back(plan);
  }
  return plans;
}

std::string write_bundle(const std::vector<PlanOf>& plans) {
  std::string path = (std::filesystem::temp_directory_path() / "tiedexport-XXXXXX").string();
  if (mkdtemp(path.data()) == nullptr) return "";
  std::filesystem::create_directory(path + "/plans");
  Files files = files_of(plans);
  const std::string document = manifest(plans, files);
  files["manifest.json"] = document;
  for (const auto& [name, content] : files) {
    std::ofstream(path + "/" + name, std::ios::binary) << content;
  }
  return path;
}

}  // namespace tiedexport::doubles
