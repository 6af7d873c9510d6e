// The C boundary: what is thrown inside becomes a status and words.
#pragma once

#include <string>

#include "error.hpp"

namespace tiedexport::internal {

/// The status of the exception being handled; its words become this thread's last error.
tiedexport_status remember_exception();

/// This thread's last error.
const char* last_error();

/// Runs `body`, which may throw anything.
template <class Body>
tiedexport_status guarded(const Body& body) {
  try {
    body();
    return TIEDEXPORT_OK;
  } catch (...) {
    return remember_exception();
  }
}

[[noreturn]] inline void refuse(const std::string& what, const std::string& where,
                                const std::string& got = "", const std::string& expected = "",
                                const std::string& hint = "") {
  throw Error(TIEDEXPORT_INVALID_ARGUMENT, {what, where, got, expected, hint});
}

/// Throws where an argument is NULL that must not be.
inline void require(const void* argument, const char* name) {
  if (argument == nullptr) refuse("an argument is NULL", name);
}

}  // namespace tiedexport::internal
