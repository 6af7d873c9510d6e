// Strings of JSON: escapes and UTF-8.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tiedexport::internal {

/// The string whose first character, after the opening quote, is text[at]; moves `at` behind the
/// closing quote. Throws JsonFault.
std::string parse_json_string(std::string_view text, std::size_t& at);

}  // namespace tiedexport::internal
