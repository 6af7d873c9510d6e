#include "words.hpp"

#include <cstddef>

namespace tiedexport::internal {

std::string shown(std::string_view text) {
  constexpr std::size_t longest = 200;
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (const char c : text.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F) {
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    } else {
      out += c;
    }
  }
  return out + (text.size() > longest ? "..." : "");
}

std::string quoted(std::string_view text) { return "'" + shown(text) + "'"; }

}  // namespace tiedexport::internal
