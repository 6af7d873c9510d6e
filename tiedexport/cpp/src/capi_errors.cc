#include "capi_errors.hpp"

#include <cstddef>
#include <cstring>
#include <new>

namespace tiedexport::internal {
namespace {

// Plain bytes: they need no destructor when a thread ends, and no memory when there is none left.
constexpr std::size_t last_error_size = 4096;
thread_local char last_error_text[last_error_size];

bool continues_a_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;  // UTF-8
}

tiedexport_status remember(tiedexport_status status, const char* text) {
  std::size_t size = std::strlen(text);
  if (size >= last_error_size) {
    size = last_error_size - 1;
    while (size > 0 && continues_a_character(text[size])) --size;
  }
  std::memcpy(last_error_text, text, size);
  last_error_text[size] = 0;
  return status;
}

}  // namespace

const char* last_error() { return last_error_text; }

tiedexport_status remember_exception() {
  try {
    throw;
  } catch (const Error& error) {
    return remember(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return remember(TIEDEXPORT_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return remember(TIEDEXPORT_INTERNAL, error.what());
  } catch (...) {
    return remember(TIEDEXPORT_INTERNAL, "an exception of unknown type");
  }
}

}  // namespace tiedexport::internal
