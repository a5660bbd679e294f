#include "base/flag_file.h"

#include <gtest/gtest.h>

#include <sstream>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<std::vector<FlagFileEntry>> Read(const std::string& text) {
  std::istringstream in(text);
  return ReadFlagFile(in);
}

TEST(ReadFlagFile, GivesNamesAndValuesAsTheyStandThere) {
  ASSERT_OK_AND_ASSIGN(const auto entries,
                       Read("# head\nthreads: 012\n\nsize: 1e3\nmodel: \"a \\\"b\\\"\"\n"));
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].name, "threads");
  EXPECT_EQ(entries[0].value, "012");
  EXPECT_EQ(entries[0].line, 2);
  EXPECT_EQ(entries[1].value, "1e3");
  EXPECT_EQ(entries[2].value, "a \"b\"");
  EXPECT_EQ(entries[2].line, 5);
}

TEST(ReadFlagFile, ReadsJsonWithItsEscapes) {
  ASSERT_OK_AND_ASSIGN(
      const auto entries,
      Read("{\n\t\"model\": \"\\/m\\u0041\\n\",\n  \"on\": true, \"n\": null\n}\n"));
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].value, "/mA\n");
  EXPECT_EQ(entries[1].value, "true");
  EXPECT_EQ(entries[2].value, "");
}

TEST(ReadFlagFile, AnEmptyFileHasNoFlags) {
  for (const char* text : {"", "# only this\n", "{}", "---\n", "null"}) {
    ASSERT_OK_AND_ASSIGN(const auto entries, Read(text));
    EXPECT_TRUE(entries.empty()) << text;
  }
}

TEST(ReadFlagFile, KeepsBothWhereANameStandsTwice) {
  ASSERT_OK_AND_ASSIGN(const auto entries, Read("a: 1\na: 2\n"));
  EXPECT_EQ(entries.size(), 2u);
}

TEST(ReadFlagFile, RefusesWhatIsNoMappingOfNamesToValues) {
  EXPECT_STATUS(Read("a = 1\n"), kInvalid, "line 1: wants flags as `name: value`");
  EXPECT_STATUS(Read("a: 1\nb: [1, 2]\n"), kInvalid, "line 2: 'b' wants one value");
  EXPECT_STATUS(Read("a: {b: 1}\n"), kInvalid, "'a' wants one value");
  EXPECT_STATUS(Read("? [a]\n: 1\n"), kInvalid, "wants a flag's name");
  EXPECT_STATUS(Read("a: 1\n---\na: 2\n"), kInvalid, "a second document");
}

TEST(ReadFlagFile, SaysWhereAFileIsNeitherYamlNorJson) {
  EXPECT_STATUS(Read("a: 1\nb: 'shut' x\n"), kInvalid, "neither YAML nor JSON");
  EXPECT_STATUS(Read("{\"a\": 1,\n \"b\" 2}"), kInvalid, "line 2");
  EXPECT_STATUS(Read("a: *nobody\n"), kInvalid, "line 1");
  EXPECT_STATUS(Read(std::string(100000, '[')), kInvalid, "neither YAML nor JSON");
}

TEST(ReadFlagFile, RefusesAFileThatIsTooLarge) {
  EXPECT_STATUS(Read(absl::StrCat("a: ", std::string(1 << 20, 'x'))), kInvalid,
                "larger than 1 MiB");
}

}  // namespace
}  // namespace muster
