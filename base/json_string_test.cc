#include "base/json_string.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

std::string Json(absl::string_view text) {
  std::string json;
  AppendJsonString(text, &json);
  return json;
}

TEST(JsonString, LeavesPlainTextAsItIs) {
  EXPECT_EQ(Json(""), R"("")");
  EXPECT_EQ(Json("held 3 of 4 {bytes} / \x7e"), R"("held 3 of 4 {bytes} / ~")");
}

TEST(JsonString, EscapesWhatWouldEndItOrTheLine) {
  EXPECT_EQ(Json("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(Json("a\nb\rc\td"), R"("a\nb\rc\td")");
  EXPECT_EQ(Json(absl::string_view("\0\x1b[2J\x7f", 6)), R"("\u0000\u001b[2J\u007f")");
}

TEST(JsonString, EscapesWhatSomeReadersTakeForAnEndOfLine) {
  EXPECT_EQ(Json("a\u0085b\u2028c\u2029d\u009fe"), R"("a\u0085b\u2028c\u2029d\u009fe")");
}

TEST(JsonString, KeepsWellFormedUtf8) {
  for (const char* text : {"\u00e4", "\u07ff", "\u0800", "\ud7ff", "\uffff", "\U00010000",
                           "\U0010ffff", "\u2019 and \u4e2d"}) {
    EXPECT_EQ(Json(text), '"' + std::string(text) + '"');
  }
}

TEST(JsonString, WritesBytesThatAreNoUtf8AsNumbers) {
  EXPECT_EQ(Json("a\xff"
                 "b"),
            R"("a\\xFFb")");
  EXPECT_EQ(Json("\x80"), R"("\\x80")") << "a continuation of nothing";
  EXPECT_EQ(Json("\xc3"), R"("\\xC3")") << "cut off";
  EXPECT_EQ(Json("\xe2\x82"), R"("\\xE2\\x82")") << "cut off";
  EXPECT_EQ(Json("\xf0\x9f\x98z"), R"("\\xF0\\x9F\\x98z")") << "broken off";
  EXPECT_EQ(Json("\xc0\xaf"), R"("\\xC0\\xAF")") << "longer than needed";
  EXPECT_EQ(Json("\xe0\x80\xaf"), R"("\\xE0\\x80\\xAF")") << "longer than needed";
  EXPECT_EQ(Json("\xed\xa0\x80"), R"("\\xED\\xA0\\x80")") << "half of a surrogate pair";
  EXPECT_EQ(Json("\xf4\x90\x80\x80"), R"("\\xF4\\x90\\x80\\x80")") << "beyond Unicode";
}

}  // namespace
}  // namespace muster
