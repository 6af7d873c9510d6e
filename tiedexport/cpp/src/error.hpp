// Errors inside the library: thrown anywhere, translated once, at the C boundary.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "tiedexport/tiedexport.h"

namespace tiedexport::internal {

/// What went wrong, where, what was got and expected, and what to do next; any but `what` may be
/// "".
struct Trouble {
  std::string what, where, got, expected, hint;
};

class Error : public std::exception {
 public:
  Error(tiedexport_status status, const Trouble& trouble)
      : status_(status), message_(words(trouble)) {}

  tiedexport_status status() const noexcept { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  static std::string words(const Trouble& trouble) {
    std::string text = trouble.what;
    if (!trouble.where.empty()) text += ": " + trouble.where;
    if (!trouble.got.empty()) text += "\n  got: " + trouble.got;
    if (!trouble.expected.empty()) text += "\n  expected: " + trouble.expected;
    if (!trouble.hint.empty()) text += "\n  try: " + trouble.hint;
    return text;
  }

  tiedexport_status status_;
  std::string message_;
};

}  // namespace tiedexport::internal
