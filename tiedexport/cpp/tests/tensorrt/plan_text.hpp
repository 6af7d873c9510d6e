// What the double of TensorRT reads in a plan; its words are those of nvinfer_double.hpp.
#pragma once

#include <NvInferRuntime.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace tiedexport::doubles {

using nvinfer1::DataType;
using nvinfer1::Dims;

struct TensorText {
  std::string name;
  bool input = false;
  DataType type = DataType::kFLOAT;
  Dims dims{};
};

struct Step {
  std::string op, from, to, detail;
};

struct PlanText {
  std::vector<TensorText> tensors;
  std::map<int, std::map<std::string, std::pair<int, int>>> profiles;
  std::map<std::string, std::int64_t> hidden;  // name → elements a row
  std::vector<Step> steps;

  explicit PlanText(const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) read(std::istringstream(line));
  }

  const TensorText* tensor(const std::string& name) const {
    const auto found = std::find_if(tensors.begin(), tensors.end(),
                                    [&](const TensorText& one) { return one.name == name; });
    return found == tensors.end() ? nullptr : &*found;
  }

  std::int64_t columns(const std::string& name) const {
    if (const auto found = hidden.find(name); found != hidden.end()) return found->second;
    const Dims& dims = tensor(name)->dims;
    std::int64_t product = 1;
    for (int axis = 1; axis < dims.nbDims; ++axis) product *= dims.d[axis];
    return product;
  }

 private:
  void read(std::istringstream words) {
    std::string kind;
    words >> kind;
    if (kind == "tensor") {
      read_tensor(&words);
    } else if (kind == "profile") {
      int index = 0, least = 0, most = 0;
      std::string name;
      words >> index >> name >> least >> most;
      profiles[index][name] = {least, most};
    } else if (kind == "hidden") {
      std::string name;
      words >> name;
      words >> hidden[name];
    } else if (!kind.empty()) {
      Step step{kind, "", "", ""};
      words >> step.from >> step.to;
      std::getline(words, step.detail);
      steps.push_back(step);
    }
  }

  void read_tensor(std::istringstream* words) {
    TensorText tensor;
    std::string direction, type;
    *words >> tensor.name >> direction >> type;
    tensor.input = direction == "in";
    if (type == "fp16") tensor.type = DataType::kHALF;
    for (std::int64_t n = 0; *words >> n;) tensor.dims.d[tensor.dims.nbDims++] = n;
    tensors.push_back(tensor);
  }
};

}  // namespace tiedexport::doubles
