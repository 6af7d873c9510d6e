// Text for messages.
#pragma once

#include <string>
#include <string_view>

namespace tiedexport::internal {

/// 'text', with what cannot be shown as \x1b, cut where it is long: names in files are hostile.
std::string quoted(std::string_view text);

/// "a, b, c"
template <class Texts>
std::string joined_with_commas(const Texts& texts) {
  std::string all;
  for (const std::string_view text : texts) all += (all.empty() ? "" : ", ") + std::string(text);
  return all;
}

}  // namespace tiedexport::internal
