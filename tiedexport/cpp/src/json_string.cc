#include "json_string.hpp"

#include <cstdint>

#include "json.hpp"

namespace tiedexport::internal {
namespace {

[[noreturn]] void fail(const char* what, std::size_t at) {
  throw JsonFault(std::string(what) + " (byte " + std::to_string(at) + ")");
}

unsigned char byte_at(std::string_view text, std::size_t at) {
  if (at >= text.size()) fail("the text ends inside a string", at);
  return static_cast<unsigned char>(text[at]);
}

std::uint32_t hex_unit(std::string_view text, std::size_t& at) {
  std::uint32_t unit = 0;
  for (int i = 0; i < 4; ++i, ++at) {
    const unsigned c = byte_at(text, at);
    const unsigned letter = c | 0x20u;
    if (c >= '0' && c <= '9')
      unit = unit << 4 | (c - '0');
    else if (letter >= 'a' && letter <= 'f')
      unit = unit << 4 | (letter - 'a' + 10);
    else
      fail("an escape that is not \\u and four hexadecimal digits", at);
  }
  return unit;
}

void append_utf8(std::string& out, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

/// After "\u": one unit, or two that are a surrogate pair.
void append_unicode_escape(std::string& out, std::string_view text, std::size_t& at) {
  const std::size_t begin = at;
  std::uint32_t code = hex_unit(text, at);
  if (code >= 0xD800 && code < 0xE000) {
    if (code >= 0xDC00 || text.substr(at, 2) != "\\u") fail("half a surrogate pair", begin);
    at += 2;
    const std::uint32_t low = hex_unit(text, at);
    if (low < 0xDC00 || low >= 0xE000) fail("half a surrogate pair", begin);
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  append_utf8(out, code);
}

void append_escape(std::string& out, std::string_view text, std::size_t& at) {
  const char c = static_cast<char>(byte_at(text, at++));
  constexpr std::string_view names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
  if (c == 'u') return append_unicode_escape(out, text, at);
  const std::size_t known = names.find(c);
  if (known == std::string_view::npos) fail("an unknown escape", at - 1);
  out += meanings[known];
}

/// How many bytes the character has whose first byte is `lead`, and in which range its second must
/// lie so that it is neither overlong, nor a surrogate, nor beyond Unicode (RFC 3629).
struct Sequence {
  std::size_t bytes;
  unsigned second_low, second_high;
};

Sequence sequence_of(unsigned lead) {
  if (lead >= 0xC2 && lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead > 0xE0 && lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  if (lead > 0xF0 && lead < 0xF4) return {4, 0x80, 0xBF};
  return {0, 0, 0};
}

void append_multibyte(std::string& out, std::string_view text, std::size_t& at) {
  const Sequence sequence = sequence_of(byte_at(text, at));
  bool valid = sequence.bytes > 0;
  for (std::size_t i = 1; valid && i < sequence.bytes; ++i) {
    const unsigned c = byte_at(text, at + i);
    valid = i == 1 ? c >= sequence.second_low && c <= sequence.second_high : (c & 0xC0) == 0x80;
  }
  if (!valid) fail("invalid UTF-8", at);
  out += text.substr(at, sequence.bytes);
  at += sequence.bytes;
}

}  // namespace

std::string parse_json_string(std::string_view text, std::size_t& at) {
  std::string out;
  while (true) {
    const unsigned char c = byte_at(text, at);
    if (c == '"') break;
    if (c < 0x20) fail("a control character inside a string", at);
    if (c == '\\') {
      append_escape(out, text, ++at);
    } else if (c >= 0x80) {
      append_multibyte(out, text, at);
    } else {
      out += text[at++];
    }
  }
  ++at;
  return out;
}

}  // namespace tiedexport::internal
