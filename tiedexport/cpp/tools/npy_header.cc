#include "npy_header.hpp"

#include <cstdint>
#include <stdexcept>

namespace run_tool {
namespace {

/// Reads the few Python literals that such a header is made of.
class Literals {
 public:
  explicit Literals(std::string_view text) : rest_(text) {}

  /// Whether `word` comes next; if so, goes past it.
  bool take(std::string_view word) {
    skip_blanks();
    if (rest_.substr(0, word.size()) != word) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  void expect(std::string_view word) {
    if (!take(word)) throw std::runtime_error("its header lacks " + std::string(word));
  }
  std::string string() {
    const char quote = take("'") ? '\'' : '"';
    if (quote == '"') expect("\"");
    const std::size_t end = rest_.find(quote);
    if (end == std::string_view::npos) throw std::runtime_error("its header ends in a string");
    std::string text(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return text;
  }
  bool boolean() {
    if (take("True")) return true;
    expect("False");
    return false;
  }
  std::vector<std::size_t> tuple() {
    std::vector<std::size_t> values;
    expect("(");
    while (!take(")")) {
      values.push_back(number());
      if (!take(",")) {
        expect(")");
        break;
      }
    }
    return values;
  }
  bool at_end() {
    skip_blanks();
    return rest_.empty();
  }

 private:
  void skip_blanks() {
    const std::size_t blanks = rest_.find_first_not_of(" \n\t\r");
    rest_.remove_prefix(blanks == std::string_view::npos ? rest_.size() : blanks);
  }
  std::size_t number() {
    skip_blanks();
    std::size_t value = 0, digits = 0;
    for (; digits < rest_.size() && rest_[digits] >= '0' && rest_[digits] <= '9'; ++digits) {
      const auto digit = static_cast<std::size_t>(rest_[digits] - '0');
      if (value > (SIZE_MAX - digit) / 10) throw std::runtime_error("its shape is too large");
      value = value * 10 + digit;
    }
    if (digits == 0) throw std::runtime_error("its shape is no tuple of numbers");
    rest_.remove_prefix(digits);
    return value;
  }

  std::string_view rest_;
};

}  // namespace

Header parse_header(std::string_view text) {
  Header header;
  bool descr = false, order = false, shape = false;
  Literals literals(text);
  literals.expect("{");
  while (!literals.take("}")) {
    const std::string key = literals.string();
    literals.expect(":");
    if (key == "descr") {
      header.descr = literals.string();
      descr = true;
    } else if (key == "fortran_order") {
      header.fortran_order = literals.boolean();
      order = true;
    } else if (key == "shape") {
      header.shape = literals.tuple();
      shape = true;
    } else {
      throw std::runtime_error("its header has an unknown entry: " + key);
    }
    if (!literals.take(",")) {
      literals.expect("}");
      break;
    }
  }
  if (!descr || !order || !shape || !literals.at_end())
    throw std::runtime_error("its header is not of descr, fortran_order and shape");
  return header;
}

std::string header_bytes(const Header& header) {
  std::string text = "{'descr': '" + header.descr +
                     "', 'fortran_order': " + (header.fortran_order ? "True" : "False") +
                     ", 'shape': (";
  for (const std::size_t size : header.shape) text += std::to_string(size) + ", ";
  text += "), }";
  constexpr std::size_t before = 10, alignment = 64;
  const std::size_t unpadded = before + text.size() + 1;
  text.append((alignment - unpadded % alignment) % alignment, ' ');
  text += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(text.size() & 0xFF);
  bytes += static_cast<char>(text.size() >> 8);
  return bytes + text;
}

}  // namespace run_tool
