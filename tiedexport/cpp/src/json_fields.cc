#include "json_fields.hpp"

#include <array>
#include <variant>

#include "words.hpp"

namespace tiedexport::internal {
namespace {

const char* kind_of(const Json& value) {
  constexpr std::array<const char*, 6> kinds{"null", "a boolean", "a number",
                                             "text", "a list",    "an object"};
  const auto* const number = std::get_if<JsonNumber>(&value.value);
  return number != nullptr && number->is_integer ? "an integer" : kinds[value.value.index()];
}

template <class Kind>
const Kind& value_of(const Json& value, const char* expected, const Place& place) {
  const auto* const found = std::get_if<Kind>(&value.value);
  if (found == nullptr)
    refuse_value(std::string("expected ") + expected + ", got " + kind_of(value), place);
  return *found;
}

}  // namespace

std::string Place::words() const {
  if (above == nullptr) return "$";
  const std::string own = name.empty() ? "[" + std::to_string(index) + "]" : "." + shown(name);
  return above->words() + own;
}

void refuse_value(const std::string& what, const Place& place) {
  throw JsonFault(what + " at " + place.words());
}

const std::string& text_of(const Json& value, const Place& place) {
  return value_of<std::string>(value, "text", place);
}

bool boolean_of(const Json& value, const Place& place) {
  return value_of<bool>(value, "a boolean", place);
}

std::int64_t integer_of(const Json& value, const Place& place) {
  const auto& number = value_of<JsonNumber>(value, "an integer", place);
  if (!number.is_integer) refuse_value("expected an integer of 64 bits, got a number", place);
  return number.integer;
}

void expect_number(const Json& value, const Place& place) {
  value_of<JsonNumber>(value, "a number", place);
}

const JsonArray& items_of(const Json& value, const Place& place) {
  return value_of<JsonArray>(value, "a list", place);
}

const JsonObject& members_of(const Json& value, const Place& place) {
  return value_of<JsonObject>(value, "an object", place);
}

std::vector<std::int64_t> integers_of(const Json& value, const Place& place) {
  return list_of(value, place, integer_of);
}

Fields::Fields(const Json& value, const Place& place)
    : members_(members_of(value, place)), place_(place), known_(members_.size()) {}

const Json* Fields::find(std::string_view name) {
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (members_[i].name == name) {
      known_[i] = true;
      return &members_[i].value;
    }
  return nullptr;
}

const Json& Fields::needed(std::string_view name) {
  const Json* const value = find(name);
  if (value == nullptr) refuse_value("the field " + std::string(name) + " is missing", place_);
  return *value;
}

void Fields::refuse_unknown() const {
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (!known_[i]) refuse_value("the field " + quoted(members_[i].name) + " is unknown", place_);
}

}  // namespace tiedexport::internal
