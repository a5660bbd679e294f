#include "coordinator/fleet.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "coordinator/test_fleet.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

TEST(Fleet, ListsWorkersInNaturalOrderWithTheirRanks) {
  TestFleet fleet({.cp = 2});
  for (const char* id : {"w10", "w2", "w11"}) fleet.Enlist(id);
  const std::vector<WorkerStatus> workers = fleet.coordinator().fleet().ListWorkers();
  ASSERT_EQ(workers.size(), 3u);
  EXPECT_EQ(workers[0].info.worker_id, "w2");
  EXPECT_EQ(workers[2].info.worker_id, "w11");
  EXPECT_EQ(workers[2].state, WorkerState::kEnlisted);
  EXPECT_FALSE(workers[2].rank.has_value());
}

TEST(Fleet, AWorkersReportIsThatOfItsRunningEpoch) {
  TestFleet fleet({});
  fleet.Enlist("w0");
  EXPECT_EQ(fleet.coordinator().fleet().ListWorkers()[0].state, WorkerState::kAssigned);
  fleet.Heartbeat("w0", 1,
                  {{.epoch = Epoch(9), .state = WorkerState::kFailed},
                   {.epoch = Epoch(1), .state = WorkerState::kWarm, .step = StepNumber(3)}});
  fleet.clock().Advance(absl::Milliseconds(200));
  const WorkerStatus worker = fleet.coordinator().fleet().ListWorkers()[0];
  EXPECT_EQ(worker.state, WorkerState::kWarm);
  EXPECT_EQ(worker.report.step, StepNumber(3));
  EXPECT_EQ(worker.rank, GlobalRank(0));
  EXPECT_EQ(worker.epoch, Epoch(1));
  EXPECT_EQ(worker.heartbeat_age, absl::Milliseconds(200));
}

TEST(Fleet, ARankThatWasSeenToBeActivatedServesBeforeItSaysSo) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(3);
  fleet.ReportProgress(FormingPhase::kAssign, "w1", {"assign"});
  fleet.Serve();
  const std::vector<WorkerStatus> workers = fleet.coordinator().fleet().ListWorkers();
  EXPECT_EQ(workers[0].state, WorkerState::kServing);
  EXPECT_EQ(workers[1].state, WorkerState::kServing);
  EXPECT_EQ(workers[2].state, WorkerState::kEnlisted);
  fleet.StartScale(3);
  EXPECT_EQ(fleet.coordinator().fleet().ListWorkers()[2].state, WorkerState::kAssigned);
}

TEST(Fleet, ADryRunNumbersTheNextEpochKeepsPlacesAndChangesNothing) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(4);
  fleet.Serve();
  ASSERT_OK_AND_ASSIGN(const Plan plan, fleet.coordinator().fleet().PlanTopology({.cp = 4}));
  ASSERT_EQ(plan.topologies.size(), 1u);
  EXPECT_EQ(plan.topologies[0].epoch, Epoch(2));
  EXPECT_EQ(plan.topologies[0].ranks[1].worker_id, "w1");
  EXPECT_EQ(plan.footprints.size(), 4u);
  EXPECT_EQ(fleet.epoch(), 1u);
  EXPECT_EQ(fleet.state(), ReplicaState::kServing);
  EXPECT_STATUS(fleet.coordinator().fleet().PlanTopology({.cp = 8}),
                absl::StatusCode::kFailedPrecondition, "it needs 8 workers, 4 are enlisted.");
}

TEST(Fleet, AWaitThatFailsSaysWhereTheMissingRankIs) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(2);
  fleet.FormUntil(FormingPhase::kWarmup);
  fleet.Heartbeat("w1", 1,
                  {{.epoch = Epoch(1),
                    .state = WorkerState::kLoaded,
                    .progress = {"warmup/open", 3, 7, "handles"}}});
  fleet.clock().Advance(absl::Milliseconds(1200));
  const Topology topology = *fleet.replica().topology;
  absl::Status failure;
  fleet.coordinator().rendezvous().AllGather(
      {.place = {.epoch = topology.epoch,
                 .group = topology.groups[0].id,
                 .key = "handles",
                 .incarnation = topology.ranks[0].incarnation},
       .rank = GroupRank(0),
       .contribution = std::string("h"),
       .timeout = absl::Milliseconds(1)},
      [&](const auto& values) { failure = values.status(); });
  fleet.clock().Advance(absl::Milliseconds(1));
  fleet.coordinator().rendezvous().Tick();
  EXPECT_STATUS(failure, absl::StatusCode::kDeadlineExceeded,
                "rank 1 (worker w1, in warmup/open, 3 of 7 handles; heartbeat 1.201s ago)");
}

TEST(Coordinator, CloseEndsLeasesAndWaits) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(2);
  fleet.coordinator().Close();
  EXPECT_STATUS(fleet.holder("w0").ends().at(0), absl::StatusCode::kUnavailable,
                "the coordinator is stopping");
  EXPECT_TRUE(fleet.coordinator().fleet().ListWorkers().empty());
}

}  // namespace
}  // namespace muster
