#include "client/ctl/topology_file.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

TEST(TopologyFile, YamlAndJsonSayTheSame) {
  const auto check = [](const std::string& text) {
    ASSERT_OK_AND_ASSIGN(const auto request, ParseTopologyFile(text));
    EXPECT_EQ(request.config().tp(), 3);
    EXPECT_EQ(request.config().cp(), 2);
    EXPECT_EQ(request.config().replicas(), 0);
    ASSERT_EQ(request.buckets_size(), 3);
    EXPECT_EQ(request.buckets(1), 8);
    ASSERT_EQ(request.drop_size(), 2);
    EXPECT_EQ(request.drop(0), "chat-1/a");
    EXPECT_EQ(request.drop(1), "*");
    EXPECT_EQ(request.timeout().seconds(), 90);
  };
  check("# wanted\ntp: 3\ncp: 2\nbuckets: [16, 8, 1]\ndrop:\n- chat-1/a\n- '*'\ntimeout: 1m30s\n");
  check(
      R"({"tp": 3, "cp": 2, "buckets": [16, 8, 1], "drop": ["chat-1/a", "*"], "timeout": "90s"})");
}

TEST(TopologyFile, WhatIsWrongIsRefusedByNameAndLine) {
  const auto refused = [](const std::string& text, const std::string& part) {
    EXPECT_STATUS(ParseTopologyFile(text), absl::StatusCode::kInvalidArgument, part);
  };
  refused("tp: 1\ncpp: 2\n", "line 2: 'cpp' is no key of a topology");
  refused("cp: 2\ncp: 3\n", "line 2: 'cp' stands there twice");
  refused("cp: 0\n", "line 1: 'cp' wants a whole number from 1 to 1,024, not '0'");
  refused("cp: 1025\n", "not '1025'");
  refused("{\"cp\":\n\"4\"}", "line 2: 'cp' wants a whole number");
  refused("cp: [4]\n", "not a list");
  refused("cp: -1\n", "not '-1'");
  refused("cp:\n", "not nothing");
  refused("buckets: 8\n", "'buckets' wants a list");
  refused("buckets: []\n", "'buckets' wants a list");
  refused("buckets:\n- 8\n- 16\n", "line 3: 'buckets' wants");
  refused("buckets: [12]\n", "powers of two");
  refused("drop: a/b\n", "'drop' wants a list");
  refused("drop: [a]\n", "CLIENT/SEQUENCE");
  refused("timeout: 90\n", "'timeout' wants a time");
  refused("timeout: 2h\n", "at most 1h");
  refused("- 1\n", "wants a mapping");
  refused("just words", "wants a mapping");
  refused("", "it is empty");
  refused("cp: 1\n---\ncp: 2\n", "begins a second document");
  refused("cp: [1\n", "neither YAML nor JSON");
}

TEST(TopologyFile, TimeoutsArePositiveAndAtMostAnHour) {
  ASSERT_OK_AND_ASSIGN(const auto timeout, ParseTimeout("1.5s"));
  EXPECT_EQ(timeout.seconds(), 1);
  EXPECT_EQ(timeout.nanos(), 500000000);
  for (const char* text : {"", "0s", "-1s", "inf", "61m", "5"}) {
    EXPECT_STATUS(ParseTimeout(text), absl::StatusCode::kInvalidArgument, "such as 90s");
  }
}

}  // namespace
}  // namespace muster::ctl
