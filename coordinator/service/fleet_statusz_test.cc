#include "coordinator/service/fleet_statusz.h"

#include <gtest/gtest.h>

#include "base/wire_json.h"
#include "coordinator/test_fleet.h"

namespace muster {
namespace {

class FleetStatuszTest : public ::testing::Test {
 protected:
  Json Show() {
    return Json::parse(FleetStatusz(fleet_.coordinator().fleet(),
                                    {.role = "coordinator", .started = fleet_.clock().Now()},
                                    fleet_.clock().Now()));
  }

  TestFleet fleet_{{.cp = 2}};
};

TEST_F(FleetStatuszTest, AFleetWithoutWorkersSaysWhatItWaitsFor) {
  fleet_.Advance(absl::Seconds(1));
  const Json json = Show();
  EXPECT_EQ(json["daemon"]["role"], "coordinator");
  EXPECT_EQ(json["config"]["cp"], 2);
  EXPECT_EQ(json["replicas"][0]["state"], "WAITING");
  EXPECT_TRUE(json["model"].is_null());
  EXPECT_TRUE(json["workers"].empty());
}

TEST_F(FleetStatuszTest, AServingFleetHasItsRanksLedgersAndGraphs) {
  fleet_.EnlistAll(3);
  fleet_.Serve();
  const Json json = Show();
  EXPECT_EQ(json["term"], 1);
  const Json& replica = json["replicas"][0];
  EXPECT_EQ(replica["state"], "SERVING");
  EXPECT_EQ(replica["topology"]["ranks"][1]["worker_id"], "w1");
  EXPECT_EQ(replica["ledgers"][1]["bytes"]["kv"], 4096);
  EXPECT_EQ(replica["ledgers"][1]["buckets"], (std::vector<int>{8, 1}));
  EXPECT_FALSE(replica.contains("next"));
  EXPECT_EQ(json["model"]["architecture"], "LlamaForCausalLM");
  ASSERT_EQ(json["workers"].size(), 3u);
  EXPECT_FALSE(json["workers"][2].contains("rank"));
}

TEST_F(FleetStatuszTest, AChangeOfShapeHasBothTopologies) {
  fleet_.EnlistAll(3);
  fleet_.Serve();
  fleet_.StartScale(3);
  fleet_.ReportProgress(FormingPhase::kAssign, "w2", {"load", 3, 9, "bytes"});
  const Json json = Show();
  EXPECT_EQ(json["replicas"][0]["topology"]["epoch"], 1);
  EXPECT_EQ(json["replicas"][0]["next"]["epoch"], 2);
  EXPECT_EQ(json["replicas"][0]["next"]["ranks"].size(), 3u);
  const Json& resize = json["operations"][0]["replicas"][0];
  EXPECT_EQ(resize["stage"], "PREPARING");
  EXPECT_EQ(resize["ranks"][2]["progress"]["done"], 3);
}

TEST_F(FleetStatuszTest, EventsAreNewestFirstAndBounded) {
  for (int i = 0; i < 120; ++i) fleet_.coordinator().fleet().events().Append({.message = "e"});
  const Json events = Show()["events"];
  ASSERT_EQ(events.size(), kStatuszEvents);
  EXPECT_EQ(events[0]["sequence"].get<int>(), events[1]["sequence"].get<int>() + 1);
}

TEST_F(FleetStatuszTest, AFailureNamesItsRankAndWorker) {
  fleet_.EnlistAll(2);
  fleet_.Serve();
  fleet_.Lose("w1");
  const Json failure = Show()["replicas"][0]["failure"];
  EXPECT_EQ(failure["detail"]["ranks"], std::vector<int>{1});
  EXPECT_EQ(failure["detail"]["workers"], std::vector<std::string>{"w1"});
}

}  // namespace
}  // namespace muster
