#include "client/ctl/report.h"

#include <gtest/gtest.h>

#include <limits>
#include <sstream>

namespace muster::ctl {
namespace {

TEST(ToYaml, WritesMappingsAndListsInBlocks) {
  const Json json = {{"epoch", 7},
                     {"ranks", {{{"rank", 0}, {"worker_id", "w0"}}, {{"rank", 1}}}},
                     {"nested", {{"list", {{1, 2}, {3}}}}}};
  EXPECT_EQ(ToYaml(json),
            "epoch: 7\n"
            "ranks:\n"
            "  -\n"
            "    rank: 0\n"
            "    worker_id: w0\n"
            "  -\n"
            "    rank: 1\n"
            "nested:\n"
            "  list:\n"
            "    -\n"
            "      - 1\n"
            "      - 2\n"
            "    -\n"
            "      - 3\n");
}

TEST(ToYaml, KeepsTheTypesOfScalars) {
  const Json json = {{"a", nullptr}, {"b", true},           {"c", -1.5}, {"d", "true"},
                     {"e", "12"},    {"f", "127.0.0.1:76"}, {"g", ""},   {"h", 1e-9}};
  EXPECT_EQ(ToYaml(json),
            "a: null\nb: true\nc: -1.5\nd: \"true\"\ne: \"12\"\nf: \"127.0.0.1:76\"\ng: \"\"\n"
            "h: 1e-09\n");
}

TEST(ToYaml, WritesWhatIsEmptyOnItsLine) {
  EXPECT_EQ(ToYaml({{"list", Json::array()}, {"map", Json::object()}}), "list: []\nmap: {}\n");
  EXPECT_EQ(ToYaml(Json::array()), "[]\n");
  EXPECT_EQ(ToYaml("a: b"), "\"a: b\"\n");
}

TEST(ToYaml, QuotesKeysAndReplacesInvalidBytes) {
  const Json json = {{"workspace/STAGE+CP", "a\nb"}, {"on", "\xFFx"}};
  EXPECT_EQ(ToYaml(json), "\"workspace/STAGE+CP\": \"a\\x0Ab\"\n\"on\": \"\xEF\xBF\xBDx\"\n");
}

TEST(ToYaml, HasNullForWhatIsNotFinite) {
  EXPECT_EQ(ToYaml({{"x", std::numeric_limits<double>::infinity()}}), "x: null\n");
}

TEST(WriteReport, SeparatesDocuments) {
  std::ostringstream json, yaml;
  for (int i = 0; i < 2; ++i) {
    WriteReport(json, Output::kJson, {{"i", i}});
    WriteReport(yaml, Output::kYaml, {{"i", i}});
  }
  EXPECT_EQ(json.str(), "{\"i\":0}\n{\"i\":1}\n");
  EXPECT_EQ(yaml.str(), "---\ni: 0\n---\ni: 1\n");
}

}  // namespace
}  // namespace muster::ctl
