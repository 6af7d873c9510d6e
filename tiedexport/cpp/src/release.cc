#include "release.hpp"

#include <cstddef>

namespace tiedexport::internal {
namespace {

/// Takes digits off the front of `text`; whether there was one.
bool take_number(std::string_view& text) {
  std::size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  text.remove_prefix(digits);
  return digits > 0;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

/// Numbers with dots between them, then perhaps a, b or rc and a number.
bool is_version(std::string_view text) {
  do {
    if (!take_number(text)) return false;
  } while (take(text, "."));
  if (text.empty()) return true;
  return (take(text, "a") || take(text, "b") || take(text, "rc")) && take_number(text) &&
         text.empty();
}

}  // namespace

std::string release_named_by(std::string_view generator) {
  const bool ours = take(generator, "tiedexport ") && is_version(generator);
  return ours ? std::string(generator) : "";
}

}  // namespace tiedexport::internal
