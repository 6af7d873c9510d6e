// The header of a safetensors file, checked as the safetensors library does and for alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "manifest.hpp"

namespace tiedexport::internal {

/// Where a tensor lies: `offset` from the begin of the file.
struct TensorEntry {
  Type type = Type::fp32;
  std::vector<std::size_t> shape;
  std::size_t count = 0, offset = 0;
};

/// Of the header, as the safetensors library has it.
constexpr std::uint64_t safetensors_header_limit_bytes = 100'000'000;

/// The tensors of a file of `file_bytes` whose first 8 bytes hold the length of `header`. Every
/// entry lies inside the file, begins where the one before it ends, is as long as its shape and
/// type say, and is aligned for its type. Throws Error (CORRUPT).
std::map<std::string, TensorEntry> safetensors_entries(std::string_view header,
                                                       std::uint64_t file_bytes,
                                                       const std::string& where);

}  // namespace tiedexport::internal
