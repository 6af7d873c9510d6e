// Releases of tiedexport by name.
#pragma once

#include <string>
#include <string_view>

namespace tiedexport::internal {

/// "1.2.0rc1" of "tiedexport 1.2.0rc1"; "" if `generator` names no release of ours, so that foreign
/// text never reaches a command.
std::string release_named_by(std::string_view generator);

}  // namespace tiedexport::internal
