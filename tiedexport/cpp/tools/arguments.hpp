// The command line of tiedexport-run.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "tiedexport/tiedexport.hpp"

namespace run_tool {

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Arguments {
  bool help = false, info = false, version = false;
  std::string bundle, input, output;
  std::string stage = "autoencoder";
  tiedexport::Check check = tiedexport::Check::hash;
  tiedexport::Options options;
  int timed_calls = 0;
};

extern const char* const help_text;

/// Throws UsageError.
Arguments parse_arguments(const std::vector<std::string>& words);

}  // namespace run_tool
