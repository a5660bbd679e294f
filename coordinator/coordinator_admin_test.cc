#include "coordinator/coordinator_admin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/metrics/metrics_text.h"
#include "coordinator/service/fleet_metrics.h"
#include "coordinator/test_fleet.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string MetricsOf(TestFleet& fleet) {
  MetricsText text;
  AddFleetMetrics(fleet.coordinator(), absl::Milliseconds(1500), text);
  return text.Write();
}

TEST(CoordinatorChecks, PassWhileItsLoopRuns) {
  TestFleet fleet({.cp = 2});
  fleet.coordinator().Tick();
  EXPECT_TRUE(AllPass(CoordinatorChecks(fleet.coordinator(), fleet.clock().Now())))
      << "without any worker";
  fleet.clock().Advance(absl::Seconds(10));
  const auto stuck = CoordinatorChecks(fleet.coordinator(), fleet.clock().Now());
  EXPECT_FALSE(AllPass(stuck));
  EXPECT_EQ(stuck.front().reason, "looked after the fleet 10 s ago");
  fleet.coordinator().Tick();
  EXPECT_TRUE(AllPass(CoordinatorChecks(fleet.coordinator(), fleet.clock().Now())));
}

TEST(CoordinatorChecks, FailOnceItIsStopping) {
  TestFleet fleet({.cp = 2});
  fleet.coordinator().Tick();
  fleet.coordinator().Close();
  EXPECT_FALSE(AllPass(CoordinatorChecks(fleet.coordinator(), fleet.clock().Now())));
}

TEST(FleetMetrics, TellWorkersAndReplicasByState) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(3);
  EXPECT_THAT(MetricsOf(fleet), HasSubstr("muster_coordinator_replicas{state=\"FORMING\"} 1\n"));
  fleet.Serve();
  const std::string text = MetricsOf(fleet);
  EXPECT_THAT(text, HasSubstr("muster_coordinator_replicas{state=\"SERVING\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("muster_coordinator_replicas{state=\"FORMING\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("muster_coordinator_workers{state=\"ENLISTED\"} "));
  EXPECT_THAT(text,
              HasSubstr("muster_coordinator_replica_epoch{replica=\"0\",tp=\"1\",cp=\"2\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("muster_coordinator_events_total{kind=\"WORKER_ENLISTED\"} 3\n"));
}

TEST(FleetMetrics, AgeTheHeartbeatsOfTheEnlistedAlone) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(2);
  fleet.clock().Advance(absl::Milliseconds(700));
  EXPECT_THAT(MetricsOf(fleet),
              HasSubstr("muster_coordinator_worker_heartbeat_age_seconds{worker_id=\"w1\"} 0.7\n"));
  fleet.Lose("w1");
  const std::string text = MetricsOf(fleet);
  EXPECT_THAT(text, Not(HasSubstr("worker_id=\"w1\"")));
  EXPECT_THAT(text, HasSubstr("muster_coordinator_events_total{kind=\"WORKER_LOST\"} 1\n"));
}

TEST(FleetMetrics, CountResizesByTheirOutcome) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(4);
  fleet.Serve();
  fleet.StartScale(4);
  EXPECT_THAT(MetricsOf(fleet), HasSubstr("muster_coordinator_operations_running 1\n"));
  fleet.Serve();
  const std::string text = MetricsOf(fleet);
  EXPECT_THAT(text, HasSubstr("muster_coordinator_resizes_total{outcome=\"done\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("muster_coordinator_resizes_total{outcome=\"rolled_back\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("muster_coordinator_resize_pause_seconds_count 1\n"));
}

TEST(ServeAdmin, IsNothingWithoutAnAddress) {
  TestFleet fleet({.cp = 2});
  ASSERT_OK_AND_ASSIGN(const auto admin, ServeAdmin("", {}, fleet.coordinator()));
  EXPECT_EQ(admin, nullptr);
}

TEST(ServeAdmin, SaysWhyItCannotListen) {
  TestFleet fleet({.cp = 2});
  ASSERT_OK_AND_ASSIGN(const auto first, ServeAdmin("127.0.0.1:0", {}, fleet.coordinator()));
  EXPECT_STATUS(ServeAdmin(first->address().ToString(), {}, fleet.coordinator()),
                absl::StatusCode::kUnavailable, "address in use");
}

}  // namespace
}  // namespace muster
