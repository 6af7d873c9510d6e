// Arrays in NumPy's .npy files, of the types that bundles have.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tiedexport/tiedexport.h"

namespace run_tool {

struct Array {
  tiedexport_type type = TIEDEXPORT_FP32;
  std::vector<std::size_t> shape;
  std::vector<char> bytes;  // row-major, little-endian
};

/// "fp32", "fp16", "bf16".
const char* name_of(tiedexport_type type);
/// "[2, 6]"
std::string text_of(const std::vector<std::size_t>& shape);

/// Versions 1 to 3. float32, float16, and bfloat16 as ml_dtypes stores it: V2. Throws
/// std::runtime_error, which says what is wrong with the file.
Array read_npy(const std::string& path);

/// Writes beside `path` and renames, so that a half-written file never has that name.
void write_npy(const std::string& path, const Array& array);

}  // namespace run_tool
