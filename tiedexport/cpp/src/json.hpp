// JSON (RFC 8259) read strictly. Of our own: the parser of nlohmann/json formats its errors by
// snprintf and reads numbers by the locale, and neither may be in this library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace tiedexport::internal {

/// Why a text is not the JSON that was expected, and where in it. Whoever reads a file translates
/// this into an Error that names the file.
class JsonFault : public std::exception {
 public:
  explicit JsonFault(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

struct JsonNumber {
  bool is_integer = false;  // without fraction and exponent, and within 64 bits
  std::int64_t integer = 0;
};

struct Json;
struct JsonMember;
using JsonArray = std::vector<Json>;
/// In the order of the text; every name once.
using JsonObject = std::vector<JsonMember>;

struct Json {
  std::variant<std::nullptr_t, bool, JsonNumber, std::string, JsonArray, JsonObject> value;
};

struct JsonMember {
  std::string name;
  Json value;
};

/// Of a text and of what a text can make of memory: a manifest or header needs far less.
constexpr int json_depth_limit = 64;
constexpr std::size_t json_values_limit = std::size_t{1} << 20;

/// Refuses what the standard does: invalid UTF-8, half surrogates, control characters, text after
/// the end; and what it leaves open: a name twice, and more or deeper values than the limits.
/// Throws JsonFault.
Json parse_json(std::string_view text);

}  // namespace tiedexport::internal
