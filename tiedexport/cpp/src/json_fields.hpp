// JSON read by what is expected in it; faults say what was found, and where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "json.hpp"

namespace tiedexport::internal {

/// Where a value lies, written out only when it is at fault: "$.stages[0].name".
struct Place {
  const Place* above = nullptr;
  std::string_view name{};  // of a member; "" for an item
  std::size_t index = 0;

  std::string words() const;
};

[[noreturn]] void refuse_value(const std::string& what, const Place& place);

// Each throws JsonFault where the value is of another kind.
const std::string& text_of(const Json& value, const Place& place);
bool boolean_of(const Json& value, const Place& place);
std::int64_t integer_of(const Json& value, const Place& place);
void expect_number(const Json& value, const Place& place);
const JsonArray& items_of(const Json& value, const Place& place);
const JsonObject& members_of(const Json& value, const Place& place);

template <class Read>
auto list_of(const Json& value, const Place& place, const Read& read) {
  const JsonArray& items = items_of(value, place);
  std::vector<std::decay_t<decltype(read(items.front(), place))>> list;
  list.reserve(items.size());
  for (std::size_t i = 0; i < items.size(); ++i)
    list.push_back(read(items[i], Place{&place, "", i}));
  return list;
}

std::vector<std::int64_t> integers_of(const Json& value, const Place& place);

/// The members of an object, each asked for by name; the place must outlive this.
class Fields {
 public:
  Fields(const Json& value, const Place& place);

  /// Calls read(value, place) on the member of that name, which must be there.
  template <class Read>
  decltype(auto) need(std::string_view name, const Read& read) {
    return read(needed(name), Place{&place_, name});
  }
  /// The same for one that may be absent; then `absent` is the result.
  template <class Read, class Value>
  Value get(std::string_view name, const Read& read, Value absent) {
    const Json* const value = find(name);
    return value == nullptr ? absent : Value(read(*value, Place{&place_, name}));
  }
  const Json* find(std::string_view name);
  /// Throws JsonFault if there are members that nobody asked for.
  void refuse_unknown() const;

 private:
  const Json& needed(std::string_view name);

  const JsonObject& members_;
  const Place& place_;
  std::vector<bool> known_;
};

}  // namespace tiedexport::internal
