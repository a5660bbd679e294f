#include "base/admin/health_check.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

const std::vector<HealthCheck> kGood = {{"epoch", true, "serves"}, {"steps", true, "none queued"}};
const std::vector<HealthCheck> kBad = {{"epoch", true, "serves"}, {"steps", false, "stuck"}};

TEST(HealthAnswer, IsShortWhenAllIsWell) {
  const AdminResponse answer = HealthAnswer("readyz", kGood, {});
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "ok\n");
}

TEST(HealthAnswer, NamesWhatFailsToWhoeverAsks) {
  const AdminResponse answer = HealthAnswer("readyz", kBad, {});
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.body, "[-]steps: stuck\nreadyz check failed\n");
}

TEST(HealthAnswer, ListsEveryCheckWhenItIsVerbose) {
  EXPECT_EQ(HealthAnswer("readyz", kBad, {.query = "verbose"}).body,
            "[+]epoch: serves\n[-]steps: stuck\nreadyz check failed\n");
  EXPECT_EQ(HealthAnswer("livez", kGood, {.query = "verbose"}).body,
            "[+]epoch: serves\n[+]steps: none queued\nlivez check passed\n");
}

}  // namespace
}  // namespace muster
