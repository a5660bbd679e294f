// When replicas are formed, and of whom.
#include "coordinator/reconfiguration.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "coordinator/test_fleet.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

TEST(Reconfiguration, TooFewWorkersWaitAndSayForHowMany) {
  TestFleet fleet({.tp = 2, .cp = 3});
  fleet.coordinator().Tick();
  EXPECT_STATUS(fleet.replica().failure, kPrecondition, "waiting for workers: 6 needed, 0 free");
  fleet.EnlistAll(5);
  EXPECT_EQ(fleet.state(), ReplicaState::kWaiting);
  EXPECT_STATUS(fleet.replica().failure, kPrecondition, "waiting for workers: 6 needed, 5 free");
  EXPECT_EQ(DetailOf(fleet.replica().failure).reason, ErrorReason::kNotEnoughWorkers);
  fleet.Enlist("w5");
  EXPECT_EQ(fleet.state(), ReplicaState::kForming);
  EXPECT_OK(fleet.replica().failure);
}

TEST(Reconfiguration, APlanThatDoesNotFitTheModelIsRefusedUntilTheModelChanges) {
  TestFleet fleet({.tp = 5});
  fleet.Enlist("w0");
  EXPECT_EQ(fleet.state(), ReplicaState::kFailed);
  EXPECT_STATUS(fleet.replica().failure, absl::StatusCode::kInvalidArgument,
                "cannot plan tp=5: the model has 12 attention heads");
  fleet.Enlist("w1");
  fleet.Advance(absl::Seconds(5));
  EXPECT_EQ(fleet.events(EventKind::kPlanRefused).size(), 1u) << "said once";
  fleet.Lose("w0");
  fleet.Lose("w1");
  EXPECT_EQ(fleet.state(), ReplicaState::kWaiting);
  WorkerInfo ten_heads = TestWorker("w2", 50);
  ten_heads.model.heads = ten_heads.model.kv_heads = 10;
  fleet.Enlist(std::move(ten_heads));
  EXPECT_EQ(fleet.state(), ReplicaState::kWaiting);
}

TEST(Reconfiguration, AWorkerWithAnotherModelStopsThePlanUntilItLeaves) {
  TestFleet fleet({.cp = 3});
  fleet.EnlistAll(2);
  WorkerInfo odd = TestWorker("w2", 50);
  odd.model.digest = "00000000000000bb";
  fleet.Enlist(std::move(odd));
  EXPECT_EQ(fleet.state(), ReplicaState::kFailed);
  EXPECT_STATUS(fleet.replica().failure, kPrecondition, "w2 holds llama-test in float32 (digest");
  fleet.Lose("w2");
  EXPECT_EQ(fleet.state(), ReplicaState::kWaiting);
  fleet.Enlist("w3");
  EXPECT_EQ(fleet.workers(), "w0 w1 w3");
}

TEST(Reconfiguration, AStandbyTakesTheRankAndSurvivorsKeepTheirsInAHigherEpoch) {
  TestFleet fleet({.tp = 2, .cp = 2});
  for (const char* id : {"w1", "w2", "w3", "w4"}) fleet.Enlist(id);
  EXPECT_EQ(fleet.workers(), "w1 w2 w3 w4");
  fleet.Serve();
  fleet.Enlist("w0");  // would come first, were ranks given out anew
  fleet.Lose("w3");
  EXPECT_EQ(fleet.Release(), (std::vector<std::string>{"w1", "w2", "w4"}));
  fleet.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet.state(), ReplicaState::kForming);
  EXPECT_EQ(fleet.workers(), "w1 w2 w0 w4");
  EXPECT_EQ(fleet.epoch(), 2u);
  fleet.Serve();
  EXPECT_EQ(fleet.state(), ReplicaState::kServing);
}

TEST(Reconfiguration, ARestartedWorkerReturnsToItsRank) {
  TestFleet fleet({.cp = 3});
  fleet.EnlistAll(3);
  fleet.Serve();
  fleet.Lose("w0");
  fleet.Release();
  fleet.Enlist("w0");
  fleet.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet.workers(), "w0 w1 w2");
  EXPECT_EQ(fleet.epoch(), 2u);
  EXPECT_EQ(fleet.replica().topology->ranks[0].incarnation, Incarnation(4));
}

TEST(Reconfiguration, NothingIsPlannedBeforeTheSurvivorsHaveGivenBack) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(3);
  fleet.Serve();
  fleet.Lose("w1");
  fleet.Advance(absl::Seconds(3));
  EXPECT_EQ(fleet.state(), ReplicaState::kFailed);
  EXPECT_EQ(fleet.epoch(), 1u);
  fleet.Release();
  fleet.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet.epoch(), 2u);
}

TEST(Reconfiguration, AWorkerWhoseCallBrokeIsNotPlannedAgainBeforeItsLeaseTells) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(3);
  const absl::Status broke = MakeError(absl::StatusCode::kUnavailable, "its connection broke",
                                       {.reason = ErrorReason::kRankLost});
  fleet.FinishRank(FormingPhase::kAssign, "w1", broke);
  fleet.Release();
  EXPECT_EQ(fleet.epoch(), 1u);
  fleet.Lose("w1");
  EXPECT_EQ(fleet.events(EventKind::kWorkerLost).at(0).rank, GlobalRank(1));
  EXPECT_EQ(fleet.events(EventKind::kWorkerLost).at(0).phase, "assign");
  fleet.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet.workers(), "w0 w2");
}

TEST(Reconfiguration, RepeatedLossesAreFollowedByLongerPauses) {
  TestFleet fleet({});
  absl::Duration before;
  for (int round = 0; round < 6; ++round) {
    fleet.Enlist("w0");
    const absl::Time lost = fleet.clock().Now();
    for (int i = 0; fleet.state() != ReplicaState::kForming; ++i) {
      ASSERT_LT(i, 1000);
      fleet.Advance(absl::Milliseconds(50), absl::Milliseconds(50));
    }
    const absl::Duration pause = fleet.clock().Now() - lost;
    if (round > 0) {
      EXPECT_GT(pause, before);
    }
    before = pause;
    fleet.Lose("w0");
    fleet.Release();
  }
  EXPECT_LE(before, absl::Seconds(10));
}

TEST(Reconfiguration, ReplicasFormTogetherWhenThereAreWorkersForAll) {
  TestFleet fleet({.cp = 2, .replicas = 2});
  fleet.EnlistAll(3);
  EXPECT_EQ(fleet.state(0), ReplicaState::kWaiting);
  fleet.Enlist("w3");
  EXPECT_EQ(fleet.workers(0), "w0 w1");
  EXPECT_EQ(fleet.workers(1), "w2 w3");
}

TEST(Reconfiguration, AsManyReplicasAsThereAreWorkersForFormOnceNobodyElseComes) {
  TestFleet fleet({.cp = 2, .replicas = 2});
  fleet.EnlistAll(3);
  fleet.Advance(absl::Milliseconds(1500));
  EXPECT_EQ(fleet.state(0), ReplicaState::kForming);
  EXPECT_EQ(fleet.state(1), ReplicaState::kWaiting);
  EXPECT_STATUS(fleet.replica(1).failure, kPrecondition, "waiting for workers: 2 needed, 1 free");
  fleet.Enlist("w3");
  EXPECT_EQ(fleet.workers(1), "w2 w3");
}

TEST(Reconfiguration, TheLossOfOneReplicaDoesNotTouchTheOther) {
  TestFleet fleet({.cp = 2, .replicas = 2});
  fleet.EnlistAll(4);
  fleet.Serve();
  fleet.Lose("w0");
  EXPECT_EQ(fleet.state(1), ReplicaState::kServing);
  EXPECT_TRUE(fleet.holder("w2").notices().empty());
  fleet.Release();
  fleet.Enlist("w9");
  fleet.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet.workers(0), "w9 w1");
  EXPECT_EQ(fleet.epoch(0), 2u);
  EXPECT_EQ(fleet.epoch(1), 1u);
}

TEST(Reconfiguration, WhatAWorkerHoldsFromAnEarlierLeaseIsGivenBackAndNeverNumberedAgain) {
  TestFleet fleet({});
  WorkerInfo worker = TestWorker("w0", 1);
  worker.epochs = {{.epoch = Epoch(7), .state = WorkerState::kServing}};
  fleet.Enlist(std::move(worker));
  EXPECT_EQ(fleet.epoch(), 8u);
  const auto releases = fleet.client().TakeReleases();
  ASSERT_EQ(releases.size(), 1u);
  EXPECT_EQ(releases[0].first.epoch, Epoch(7));
}

TEST(Reconfiguration, EveryChangeIsTold) {
  TestFleet fleet({});
  int changes = 0;
  const auto subscription =
      fleet.coordinator().fleet().topology_changes().Subscribe([&] { ++changes; });
  fleet.Enlist("w0");
  const int formed = changes;
  EXPECT_GT(formed, 0);
  fleet.coordinator().Tick();
  EXPECT_EQ(changes, formed);
  fleet.Serve();
  EXPECT_GT(changes, formed);
}

TEST(Reconfiguration, AnEpochThatNobodyCountsToLeavesTheNumbersAsTheyAre) {
  TestFleet fleet({});
  WorkerInfo hostile = TestWorker("w0", 50);
  hostile.epochs = {{.epoch = Epoch(~uint64_t{0}), .state = WorkerState::kServing}};
  fleet.Enlist(std::move(hostile));
  EXPECT_EQ(fleet.state(), ReplicaState::kForming);
  EXPECT_EQ(fleet.epoch(), 1u);
}

}  // namespace
}  // namespace muster
