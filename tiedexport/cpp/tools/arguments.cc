#include "arguments.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <deque>
#include <iterator>

namespace run_tool {
namespace {

int number(const std::string& option, const std::string& text, int smallest) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stopped != end || value < smallest)
    throw UsageError(option + " takes a number from " + std::to_string(smallest) + " on, not '" +
                     text + "'");
  return value;
}

tiedexport::Check check_named(const std::string& text) {
  if (text == "hash") return tiedexport::Check::hash;
  if (text == "size") return tiedexport::Check::size;
  throw UsageError("--check takes hash or size, not '" + text + "'");
}

constexpr const char* valued[] = {"--stage",   "--backend", "--precision", "--simd",
                                  "--threads", "--device",  "--time",      "--check"};

void set(Arguments& arguments, const std::string& option, const std::string& value) {
  if (option == "--stage") {
    arguments.stage = value;
  } else if (option == "--backend") {
    arguments.options.backend = value;
  } else if (option == "--precision") {
    arguments.options.precision = value;
  } else if (option == "--simd") {
    arguments.options.simd = value;
  } else if (option == "--threads") {
    arguments.options.threads = number(option, value, 0);
  } else if (option == "--device") {
    arguments.options.device = number(option, value, 0);
  } else if (option == "--time") {
    arguments.timed_calls = number(option, value, 1);
  } else if (option == "--check") {
    arguments.check = check_named(value);
  }
}

/// Cuts the value off "--option=value", or takes it from the next word.
std::string value_of(std::string& option, std::deque<std::string>& rest) {
  const std::size_t equals = option.find('=');
  const std::string name = option.substr(0, equals);
  if (std::find(std::begin(valued), std::end(valued), name) == std::end(valued))
    throw UsageError("no such option: " + name);
  if (equals != std::string::npos) {
    const std::string value = option.substr(equals + 1);
    option = name;
    return value;
  }
  if (rest.empty()) throw UsageError(option + " lacks its value");
  const std::string value = rest.front();
  rest.pop_front();
  return value;
}

bool set_flag(Arguments& arguments, const std::string& word) {
  if (word == "--help" || word == "-h") return arguments.help = true;
  if (word == "--info") return arguments.info = true;
  if (word == "--version") return arguments.version = true;
  return false;
}

}  // namespace

const char* const help_text =
    R"(usage: tiedexport-run [OPTIONS] BUNDLE INPUT.npy OUTPUT.npy

Runs a stage of a bundle on the samples of INPUT.npy.

  --stage NAME       encoder, decoder or autoencoder (default: autoencoder)
  --backend NAME     native, onnxruntime or tensorrt (default: the best here)
  --precision NAME   fp32, fp16 or bf16 (default: fp32; tensorrt: fp16; else what is stored)
  --threads N        CPU threads (default: one a processor)
  --simd NAME        an instruction set of native, for comparing; --info lists them
  --device N         of a GPU backend
  --check hash|size  what is checked of the bundle's files (default: hash)
  --time N           time N calls as well: median and minimum
  --info             backends and instruction sets of this machine, and why others are not
  --version, --help

Exits with 0, with 1 where something failed, with 2 where the command line is wrong.
)";

Arguments parse_arguments(const std::vector<std::string>& words) {
  Arguments arguments;
  std::vector<std::string> places;
  std::deque<std::string> rest(words.begin(), words.end());
  while (!rest.empty()) {
    std::string word = rest.front();
    rest.pop_front();
    if (set_flag(arguments, word)) continue;
    if (word.size() > 1 && word[0] == '-') {
      const std::string value = value_of(word, rest);
      set(arguments, word, value);
    } else {
      places.push_back(word);
    }
  }
  if (arguments.help || arguments.info || arguments.version) return arguments;
  if (places.size() != 3) throw UsageError("BUNDLE, INPUT.npy and OUTPUT.npy are needed");
  arguments.bundle = places[0];
  arguments.input = places[1];
  arguments.output = places[2];
  return arguments;
}

}  // namespace run_tool
