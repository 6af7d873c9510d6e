#include "json.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <system_error>

#include "json_string.hpp"
#include "words.hpp"

namespace tiedexport::internal {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json document() {
    Json value = any(0);
    skip_space();
    if (at_ < text_.size()) fail("text after the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw JsonFault(what + " (byte " + std::to_string(at_) + ")");
  }

  void skip_space() {
    const std::size_t next = text_.find_first_not_of(" \t\r\n", at_);
    at_ = next == std::string_view::npos ? text_.size() : next;
  }

  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool take_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Json any(int depth) {
    if (depth > json_depth_limit) fail("nested too deeply");
    if (++values_ > json_values_limit) fail("too many values");
    skip_space();
    if (take('{')) return {object(depth + 1)};
    if (take('[')) return {array(depth + 1)};
    if (take('"')) return {parse_json_string(text_, at_)};
    if (take_word("true")) return {true};
    if (take_word("false")) return {false};
    if (take_word("null")) return {nullptr};
    return {number()};
  }

  JsonArray array(int depth) {
    JsonArray items;
    skip_space();
    if (take(']')) return items;
    do {
      items.push_back(any(depth));
      skip_space();
    } while (take(','));
    if (!take(']')) fail("expected , or ]");
    return items;
  }

  JsonObject object(int depth) {
    JsonObject members;
    skip_space();
    if (take('}')) return members;
    do {
      skip_space();
      if (!take('"')) fail("expected a name");
      std::string name = parse_json_string(text_, at_);
      skip_space();
      if (!take(':')) fail("expected :");
      members.push_back({std::move(name), any(depth)});
      skip_space();
    } while (take(','));
    if (!take('}')) fail("expected , or }");
    refuse_twins(members);
    return members;
  }

  /// Readers differ in which of two members of one name they take.
  void refuse_twins(const JsonObject& members) const {
    std::vector<std::string_view> names;
    names.reserve(members.size());
    for (const JsonMember& member : members) names.push_back(member.name);
    std::sort(names.begin(), names.end());
    const auto twin = std::adjacent_find(names.begin(), names.end());
    if (twin != names.end()) fail("a name twice in one object: " + quoted(*twin));
  }

  void digits() {
    if (at_ >= text_.size() || !is_digit(text_[at_])) fail("expected a value");
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
  }

  JsonNumber number() {
    const std::size_t begin = at_;
    take('-');
    if (!take('0')) digits();
    const std::size_t integer_end = at_;
    if (take('.')) digits();
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      digits();
    }
    JsonNumber parsed;
    if (at_ > integer_end) return parsed;
    const auto result =
        std::from_chars(text_.data() + begin, text_.data() + integer_end, parsed.integer);
    parsed.is_integer = result.ec == std::errc();
    return parsed;
  }

  std::string_view text_;
  std::size_t at_ = 0, values_ = 0;
};

}  // namespace

Json parse_json(std::string_view text) { return Parser(text).document(); }

}  // namespace tiedexport::internal
