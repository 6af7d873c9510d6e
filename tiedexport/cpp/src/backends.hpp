// Which backend and precision a session gets.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.hpp"

namespace tiedexport::internal {

/// What the caller of tiedexport_session_create asked for; "" for the default.
struct Request {
  std::string backend, precision, simd;
  int threads = 0, device = 0;
};

struct Opened {
  const char* backend;
  Type precision;
  std::unique_ptr<Backend> session;
};

/// Opens the backend asked for or, for "" and "auto", the first of `rows` that is available, does
/// not refuse the bundle and opens it. Throws Error: INVALID_ARGUMENT (an unknown name),
/// UNAVAILABLE, UNSUPPORTED, or what the backend itself throws.
Opened open_backend(const std::vector<BackendRow>& rows, std::shared_ptr<const Bundle> bundle,
                    const Request& request);

/// "reason; remedy" of a backend that does not work here.
std::string words(const Availability& availability);

}  // namespace tiedexport::internal
