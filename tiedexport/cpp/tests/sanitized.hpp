// Whether a sanitizer checks every access, which takes 20 times as long: tests then go through
// fewer sizes, since numbers are judged in full without one.
#pragma once

namespace tiedexport::internal {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif

}  // namespace tiedexport::internal
