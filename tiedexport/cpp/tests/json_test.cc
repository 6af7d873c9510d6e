// JSON is read strictly: what the standard forbids or leaves open is refused.
#include "json.hpp"

#include <gtest/gtest.h>

#include <string>

#include "json_fields.hpp"

namespace tiedexport::internal {
namespace {

std::string fault_of(const std::string& text) {
  try {
    parse_json(text);
  } catch (const JsonFault& fault) {
    return fault.what();
  }
  return "";
}

std::string parsed_text(const std::string& text) { return text_of(parse_json(text), Place{}); }
std::int64_t parsed_integer(const std::string& text) {
  return integer_of(parse_json(text), Place{});
}

TEST(JsonTest, ReadsEveryKind) {
  const Json json = parse_json(R"( {"a": [1, -2.5e3, true, false, null, "x"], "b": {}} )");
  const JsonObject& members = members_of(json, Place{});
  ASSERT_EQ(members.size(), 2u);
  EXPECT_EQ(members[0].name, "a");
  const JsonArray& items = items_of(members[0].value, Place{});
  ASSERT_EQ(items.size(), 6u);
  EXPECT_EQ(integer_of(items[0], Place{}), 1);
  EXPECT_THROW(integer_of(items[1], Place{}), JsonFault);
  EXPECT_NO_THROW(expect_number(items[1], Place{}));
  EXPECT_TRUE(boolean_of(items[2], Place{}));
  EXPECT_FALSE(boolean_of(items[3], Place{}));
  EXPECT_TRUE(std::holds_alternative<std::nullptr_t>(items[4].value));
  EXPECT_EQ(text_of(items[5], Place{}), "x");
  EXPECT_TRUE(members_of(members[1].value, Place{}).empty());
}

TEST(JsonTest, ReadsIntegersOf64BitsAndNoOthers) {
  EXPECT_EQ(parsed_integer("0"), 0);
  EXPECT_EQ(parsed_integer("-0"), 0);
  EXPECT_EQ(parsed_integer("9223372036854775807"), INT64_MAX);
  EXPECT_EQ(parsed_integer("-9223372036854775808"), INT64_MIN);
  for (const char* text : {"9223372036854775808", "1.0", "1e3", "1e999", "\"1\"", "true"})
    EXPECT_THROW(parsed_integer(text), JsonFault) << text;
}

TEST(JsonTest, ReadsEscapesAndUtf8) {
  EXPECT_EQ(parsed_text(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(parsed_text(R"("\u0041\u00e9\u20AC\ud83d\ude00")"), "A\u00e9\u20ac\U0001F600");
  EXPECT_EQ(parsed_text("\"\u00e9\u20ac\U0001F600\""), "\u00e9\u20ac\U0001F600");
  EXPECT_EQ(parsed_text(R"("\u0000")"), std::string(1, '\0'));
}

struct Bad {
  const char* name;
  std::string text;
  const char* fault;
};

class BadJsonTest : public ::testing::TestWithParam<Bad> {};

TEST_P(BadJsonTest, IsRefused) {
  EXPECT_NE(fault_of(GetParam().text).find(GetParam().fault), std::string::npos)
      << fault_of(GetParam().text);
}

const Bad bad_texts[] = {
    {"Empty", "", "expected a value"},
    {"TextAfterTheEnd", "{} {}", "after the end"},
    {"CommaAtTheEnd", "[1,]", "expected a value"},
    {"NoComma", "[1 2]", "expected , or ]"},
    {"NoColon", "{\"a\" 1}", "expected :"},
    {"NoName", "{1: 2}", "expected a name"},
    {"OpenArray", "[1", "expected , or ]"},
    {"OpenObject", "{\"a\": 1", "expected , or }"},
    {"OpenString", "\"a", "ends inside a string"},
    {"OpenEscape", "\"\\", "ends inside a string"},
    {"OpenCharacter", "\"\xe2\x82", "ends inside a string"},
    {"LeadingZero", "01", "after the end"},
    {"Plus", "+1", "expected a value"},
    {"BareMinus", "-", "expected a value"},
    {"BarePoint", "1.", "expected a value"},
    {"BareExponent", "1e", "expected a value"},
    {"NotANumber", "NaN", "expected a value"},
    {"Infinity", "-Infinity", "expected a value"},
    {"Comment", "/**/1", "expected a value"},
    {"ControlCharacter", "\"a\nb\"", "control character"},
    {"UnknownEscape", "\"\\x\"", "unknown escape"},
    {"ShortEscape", "\"\\u12g4\"", "hexadecimal"},
    {"LoneHighSurrogate", "\"\\ud83dx\"", "surrogate"},
    {"LoneLowSurrogate", "\"\\ude00\"", "surrogate"},
    {"TwoHighSurrogates", "\"\\ud83d\\ud83d\"", "surrogate"},
    {"LoneContinuation", "\"\x80\"", "UTF-8"},
    {"Overlong2", "\"\xc0\xaf\"", "UTF-8"},
    {"Overlong3", "\"\xe0\x80\xaf\"", "UTF-8"},
    {"Overlong4", "\"\xf0\x80\x80\xaf\"", "UTF-8"},
    {"EncodedSurrogate", "\"\xed\xa0\x80\"", "UTF-8"},
    {"BeyondUnicode", "\"\xf4\x90\x80\x80\"", "UTF-8"},
    {"FiveBytes", "\"\xf8\x88\x80\x80\x80\"", "UTF-8"},
    {"NameTwice", R"({"a": 1, "b": 2, "\u0061": 3})", "twice in one object: 'a'"},
    {"TooDeep", std::string(100000, '['), "too deeply"},
    {"TooDeepObjects",
     [] {
       std::string text;
       for (int i = 0; i < 100000; ++i) text += "{\"a\":";
       return text;
     }(),
     "too deeply"},
};

INSTANTIATE_TEST_SUITE_P(Texts, BadJsonTest, ::testing::ValuesIn(bad_texts),
                         [](const auto& text) { return text.param.name; });

TEST(JsonTest, NestsAsDeepAsTheLimitAndHoldsSoManyValues) {
  const auto nested = [](int depth) {
    const auto count = static_cast<std::size_t>(depth);
    return std::string(count, '[') + std::string(count, ']');
  };
  EXPECT_EQ(fault_of(nested(json_depth_limit)), "");
  EXPECT_NE(fault_of(nested(json_depth_limit + 2)), "");
  std::string many = "[0";
  for (std::size_t i = 0; i + 2 < json_values_limit; ++i) many += ",0";
  EXPECT_EQ(fault_of(many + "]"), "");
  EXPECT_NE(fault_of(many + ",0]").find("too many"), std::string::npos);
}

TEST(JsonFieldsTest, SayWhereTheFaultLies) {
  const Json json = parse_json(R"({"a": [{"b": 1}], "c": 2})");
  const Place root;
  Fields fields(json, root);
  const auto read = [](const Json& item, const Place& at) {
    return Fields(item, at).need("b", text_of);
  };
  try {
    fields.need("a", [&](const Json& list, const Place& at) { return list_of(list, at, read); });
    ADD_FAILURE() << "nothing was refused";
  } catch (const JsonFault& fault) {
    EXPECT_STREQ(fault.what(), "expected text, got an integer at $.a[0].b");
  }
  EXPECT_THROW(fields.need("missing", text_of), JsonFault);
  EXPECT_THROW(fields.refuse_unknown(), JsonFault);
  EXPECT_EQ(fields.get("c", integer_of, std::int64_t{0}), 2);
  EXPECT_EQ(fields.get("d", integer_of, std::int64_t{7}), 7);
  EXPECT_NO_THROW(fields.refuse_unknown());
}

}  // namespace
}  // namespace tiedexport::internal
