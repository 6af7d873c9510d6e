// What this library is made of, and what of it works on this machine.
#pragma once

#include <string>

namespace tiedexport::internal {

/// Lines of text: version, backends with the reasons of those that do not work, instruction sets.
std::string info();

}  // namespace tiedexport::internal
