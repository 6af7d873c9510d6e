// The Python dict at the beginning of a .npy file.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace run_tool {

struct Header {
  std::string descr;  // "<f4"
  bool fortran_order = false;
  std::vector<std::size_t> shape;
};

/// Throws std::runtime_error where `text` is not {'descr': ..., 'fortran_order': ..., 'shape': ...}
/// in any order.
Header parse_header(std::string_view text);

/// The whole beginning of a file, version 1, magic included, padded to 64 bytes.
std::string header_bytes(const Header& header);

}  // namespace run_tool
