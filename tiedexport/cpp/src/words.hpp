// Text for messages.
#pragma once

#include <string>
#include <string_view>

namespace tiedexport::internal {

/// Text of a file as ASCII, with every other byte as \x1b, cut where it is long: it may hold what a
/// terminal obeys, or be no text at all.
std::string shown(std::string_view text);
/// The same between quotes.
std::string quoted(std::string_view text);

/// "a, b, c"
template <class Texts>
std::string joined_with_commas(const Texts& texts) {
  std::string all;
  for (const std::string_view text : texts) all += (all.empty() ? "" : ", ") + std::string(text);
  return all;
}

}  // namespace tiedexport::internal
