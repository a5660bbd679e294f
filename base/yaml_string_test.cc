#include "base/yaml_string.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

TEST(YamlString, StaysPlainWhereItCanBeNothingElse) {
  for (const char* text : {"gpu-0", "SERVING", "/models/SmolLM2-135M", "warmup/exchange", "_x.y"}) {
    EXPECT_EQ(YamlString(text), text);
  }
}

TEST(YamlString, IsQuotedWhereAReaderCouldSeeAnotherType) {
  for (const char* text : {"", "12", "-1", "0x1f", "1e3", ".inf", "12:30", "2026-01-01", "yes",
                           "No", "TRUE", "null", "~", "NaN", "y", "512MiB", "-", "=", "<<"}) {
    EXPECT_EQ(YamlString(text), "\"" + std::string(text) + "\"");
  }
}

TEST(YamlString, IsQuotedWhereItHasWhatYamlReadsItself) {
  for (const char* text : {"a: b", "a #b", "[::1]:7600", "{a}", "*a", "&a", "!a", "|", "a,b", "%a",
                           "127.0.0.1:7600", " a", "a ", "@a", "`a`", "'a'", "é"}) {
    EXPECT_EQ(YamlString(text), "\"" + std::string(text) + "\"");
  }
}

TEST(YamlString, EscapesWhatWouldEndTheStringOrTheLine) {
  EXPECT_EQ(YamlString("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(YamlString("a\nb\tc\x7F"), R"("a\x0Ab\x09c\x7F")");
  EXPECT_EQ(YamlString("\xC2\x85\xE2\x80\xA8\xEF\xBB\xBF"), R"("\x85\u2028\uFEFF")");
}

}  // namespace
}  // namespace muster
