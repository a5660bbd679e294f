#include "base/admin/statusz/statusz.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/time/time.h"

namespace muster {
namespace {

class StatuszTest : public ::testing::Test {
 protected:
  StatuszTest() {
    AddStatusz([] { return std::string("{}"); }, &routes_);
  }

  AdminRoutes routes_;
};

TEST_F(StatuszTest, ThePageMayRunWhatItCameWithAndAskItsOwnPort) {
  const AdminResponse page = routes_.at("/statusz")({});
  EXPECT_EQ(page.content_type, "text/html; charset=utf-8");
  EXPECT_TRUE(absl::StartsWith(page.body, "<!doctype html>"));
  EXPECT_TRUE(absl::StrContains(page.policy, "default-src 'none'; style-src 'sha256-"));
  EXPECT_TRUE(absl::StrContains(page.policy, "; script-src 'sha256-"));
  EXPECT_TRUE(absl::StrContains(page.policy, "; connect-src 'self'; "));
  EXPECT_FALSE(absl::StrContains(page.policy, "unsafe"));
}

TEST_F(StatuszTest, ThePageWritesTextAndNeverMarkup) {
  const std::string page = routes_.at("/statusz")({}).body;
  for (const char* way :
       {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "setHTMLUnsafe", "eval(",
        "Function(", "http://", "https://", "@import"}) {
    EXPECT_FALSE(absl::StrContains(page, way)) << way;
  }
}

TEST_F(StatuszTest, TheJsonIsTheProviders) {
  const AdminResponse json = routes_.at("/statusz.json")({});
  EXPECT_EQ(json.content_type, "application/json");
  EXPECT_EQ(json.body, "{}");
  EXPECT_EQ(json.policy, kNothingAllowed);
}

TEST(DaemonJsonTest, TimesHaveTheirUnits) {
  const absl::Time started = absl::FromUnixSeconds(1000);
  const auto json = DaemonJson({.role = "worker", .name = "w0", .started = started},
                               started + absl::Milliseconds(1500));
  EXPECT_EQ(json["time"], "1970-01-01T00:16:41.500Z");
  EXPECT_EQ(json["uptime_ms"], 1500);
  EXPECT_EQ(json["insecure"], "");
}

TEST(StatuszTextTest, BytesThatAreNoUtf8DoNotThrow) {
  EXPECT_EQ(StatuszText({{"name", "a\xff"}}), "{\"name\":\"a\uFFFD\"}");
}

}  // namespace
}  // namespace muster
