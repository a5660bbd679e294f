// One replica's life and its failures, with every call of a worker ended by hand.
#include "coordinator/replica.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "coordinator/test_fleet.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr FormingPhase kAllPhases[] = {FormingPhase::kAssign, FormingPhase::kLoad,
                                       FormingPhase::kWarmup, FormingPhase::kCapture,
                                       FormingPhase::kActivate};

std::string Named(FormingPhase phase) { return FormingPhaseName(phase); }

TEST(Replica, LeadsAllRanksThroughAllPhasesToServing) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(2);
  EXPECT_EQ(fleet.state(), ReplicaState::kForming);
  EXPECT_EQ(fleet.epoch(), 1u);
  for (FormingPhase phase : kAllPhases) {
    EXPECT_EQ(fleet.state(), ReplicaState::kForming);
    fleet.clock().Advance(absl::Milliseconds(20));
    EXPECT_EQ(fleet.FinishPhase(phase), 2) << Named(phase);
  }
  const ReplicaStatus replica = fleet.replica();
  EXPECT_EQ(replica.state, ReplicaState::kServing);
  EXPECT_OK(replica.failure);
  EXPECT_EQ(replica.serving_since, fleet.clock().Now());
  ASSERT_EQ(replica.phases.size(), 5u);
  EXPECT_EQ(replica.phases[2].phase, "warmup");
  EXPECT_EQ(replica.phases[2].duration, absl::Milliseconds(20));
  ASSERT_EQ(replica.ledgers.size(), 2u);
  EXPECT_EQ(replica.ledgers[1].rank, GlobalRank(1));
  EXPECT_EQ(replica.ledgers[1].kv_blocks, 10u);
  EXPECT_EQ(replica.ledgers[1].entries[0].tag, "kv");
}

TEST(Replica, APhaseBeginsWhenTheLastRankHasEndedTheOneBefore) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(2);
  fleet.FinishPhase(FormingPhase::kAssign);
  fleet.FinishRank(FormingPhase::kLoad, "w1", PhaseResult{});
  EXPECT_EQ(fleet.FinishPhase(FormingPhase::kWarmup), 0);
  fleet.FinishRank(FormingPhase::kLoad, "w0", PhaseResult{});
  EXPECT_EQ(fleet.FinishPhase(FormingPhase::kWarmup), 2);
}

TEST(Replica, EventsTellItsLife) {
  TestFleet fleet({.tp = 2});
  fleet.EnlistAll(2);
  fleet.Serve();
  const std::vector<Event> planned = fleet.events(EventKind::kTopologyPlanned);
  ASSERT_EQ(planned.size(), 1u);
  EXPECT_EQ(planned[0].message, "planned tp=2 cp=1 on w0 w1");
  EXPECT_EQ(planned[0].epoch, Epoch(1));
  EXPECT_EQ(fleet.events(EventKind::kPhaseDone).size(), 5u);
  EXPECT_EQ(fleet.events(EventKind::kServing)[0].message, "serving on 2 ranks");
}

class ReplicaInPhase : public ::testing::TestWithParam<FormingPhase> {
 protected:
  ReplicaInPhase() {
    fleet_.EnlistAll(3);
    fleet_.FormUntil(GetParam());
  }

  // Every rank but `culprit` was told why, and so is the world.
  void ExpectEnded(const std::string& culprit, absl::StatusCode code, const std::string& message) {
    const ReplicaStatus replica = fleet_.replica();
    EXPECT_STATUS(replica.failure, code, message);
    EXPECT_EQ(DetailOf(replica.failure).epoch, Epoch(1));
    EXPECT_EQ(DetailOf(replica.failure).workers, std::vector<std::string>{culprit});
    for (const char* id : {"w0", "w1", "w2"}) {
      if (id == culprit) continue;
      ASSERT_EQ(fleet_.holder(id).notices().size(), 1u) << id;
      EXPECT_EQ(fleet_.holder(id).notices()[0].reason, replica.failure);
    }
    const std::vector<Event> events = fleet_.events(EventKind::kEpochFailed);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].message, replica.failure.message());
    EXPECT_EQ(events[0].worker_id, culprit);
    EXPECT_EQ(events[0].rank, GlobalRank(1));
    EXPECT_EQ(events[0].phase, Named(GetParam()));
  }

  TestFleet fleet_{{.cp = 3}};
};

INSTANTIATE_TEST_SUITE_P(Phases, ReplicaInPhase, ::testing::ValuesIn(kAllPhases),
                         [](const auto& phase) { return Named(phase.param); });

TEST_P(ReplicaInPhase, ARankThatFailsEndsTheEpochForAllAndIsNamed) {
  fleet_.FinishRank(GetParam(), "w1", absl::ResourceExhaustedError("0.7 GiB free"));
  ExpectEnded("w1", absl::StatusCode::kResourceExhausted,
              "rank 1 (worker w1) failed in " + Named(GetParam()) + ": 0.7 GiB free");
  EXPECT_EQ(fleet_.state(), ReplicaState::kFailed);
  EXPECT_EQ(fleet_.Release(), (std::vector<std::string>{"w0", "w1", "w2"}));
  fleet_.Advance(absl::Minutes(1));
  EXPECT_EQ(fleet_.state(), ReplicaState::kFailed) << "what failed once fails again";
}

TEST_P(ReplicaInPhase, ALostWorkerEndsTheEpochForAllAndIsNamed) {
  fleet_.Lose("w1");
  ExpectEnded("w1", absl::StatusCode::kUnavailable,
              "rank 1 (worker w1) was lost in " + Named(GetParam()) + ": its connection broke");
  EXPECT_TRUE(fleet_.holder("w1").notices().empty());
  EXPECT_EQ(fleet_.client().forgotten(), std::vector<std::string>{"127.0.0.1:7002"});
  const std::vector<Event> lost = fleet_.events(EventKind::kWorkerLost);
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].message,
            "worker w1 with rank 1 (" + Named(GetParam()) + ") was lost: its connection broke");
  EXPECT_EQ(lost[0].rank, GlobalRank(1));
  EXPECT_EQ(lost[0].phase, Named(GetParam()));
  EXPECT_EQ(fleet_.Release(), (std::vector<std::string>{"w0", "w2"}));
  EXPECT_EQ(fleet_.state(), ReplicaState::kWaiting);
  fleet_.Advance(absl::Seconds(1));
  EXPECT_STATUS(fleet_.replica().failure, absl::StatusCode::kFailedPrecondition,
                "waiting for workers: 3 needed, 2 free");
}

TEST_P(ReplicaInPhase, ARankWithoutProgressEndsTheEpochThoughItsHeartbeatsGoOn) {
  for (const char* id : {"w0", "w2"}) fleet_.FinishRank(GetParam(), id, PhaseResult{});
  fleet_.Advance(absl::Seconds(62));
  EXPECT_EQ(fleet_.state(), ReplicaState::kForming);
  fleet_.Advance(absl::Seconds(1));
  ExpectEnded("w1", absl::StatusCode::kDeadlineExceeded,
              "rank 1 (worker w1) made no progress in " + Named(GetParam()) + " for 1m2.5s");
  EXPECT_EQ(DetailOf(fleet_.replica().failure).reason, ErrorReason::kRankMissing);
}

TEST_P(ReplicaInPhase, AFrozenWorkerLosesItsLeaseAndEndsTheEpoch) {
  fleet_.Advance(absl::Seconds(2), absl::Milliseconds(500), {"w1"});
  ExpectEnded(
      "w1", absl::StatusCode::kUnavailable,
      "rank 1 (worker w1) was lost in " + Named(GetParam()) + ": it sent no heartbeat for 2s");
}

TEST(Replica, ProgressPutsOffTheTimeoutAndIsNamedAsThePhase) {
  TestFleet fleet({});
  fleet.EnlistAll(1);
  fleet.FormUntil(FormingPhase::kWarmup);
  for (uint64_t i = 0; i < 5; ++i) {
    fleet.Advance(absl::Seconds(60));
    fleet.ReportProgress(FormingPhase::kWarmup, "w0", {.phase = "warmup/open", .done = i});
  }
  EXPECT_EQ(fleet.state(), ReplicaState::kForming);
  fleet.FinishRank(FormingPhase::kWarmup, "w0", absl::InternalError("no such handle"));
  EXPECT_STATUS(fleet.replica().failure, absl::StatusCode::kInternal,
                "rank 0 (worker w0) failed in warmup/open: no such handle");
}

TEST(Replica, AFailureThatNamesItsCulpritIsNotBlamedOnItsMessenger) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(2);
  fleet.FormUntil(FormingPhase::kWarmup);
  const absl::Status missing =
      MakeError(absl::StatusCode::kDeadlineExceeded, "waited 60s for rank 1 (worker w1)",
                {.reason = ErrorReason::kRankMissing,
                 .ranks = {GlobalRank(1)},
                 .workers = {"w1"},
                 .phase = "warmup/exchange"});
  fleet.FinishRank(FormingPhase::kWarmup, "w0", missing);
  EXPECT_EQ(fleet.replica().failure.message(), "waited 60s for rank 1 (worker w1)");
  EXPECT_EQ(DetailOf(fleet.replica().failure).workers, std::vector<std::string>{"w1"});
}

TEST(Replica, RanksThatAgreeOnDifferentDigestsDoNotServe) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(2);
  fleet.FormUntil(FormingPhase::kCapture);
  fleet.FinishRank(FormingPhase::kCapture, "w0", PhaseResult{.agreement_digest = "aa"});
  fleet.FinishRank(FormingPhase::kCapture, "w1", PhaseResult{.agreement_digest = "bb"});
  EXPECT_EQ(fleet.state(), ReplicaState::kFailed);
  EXPECT_STATUS(fleet.replica().failure, absl::StatusCode::kAborted,
                "ranks agreed on different digests: rank 0 has aa, rank 1 (worker w1) has bb");
  EXPECT_EQ(DetailOf(fleet.replica().failure).reason, ErrorReason::kDisagreement);
}

TEST(Replica, AnswersOfAnEarlierEpochChangeNothing) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(3);
  std::vector<FakeWorkerClient::PhaseCall> old = fleet.client().TakePhases();
  fleet.Lose("w1");
  fleet.Release();
  fleet.Advance(absl::Seconds(1));
  ASSERT_EQ(fleet.epoch(), 2u);
  for (const auto& call : old) {
    call.on_progress({.phase = "load"});
    call.done(absl::InternalError("too late"));
  }
  EXPECT_EQ(fleet.state(), ReplicaState::kForming);
}

TEST(Replica, ALostWorkerOfAServingReplicaIsNamedToTheSurvivors) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(2);
  fleet.Serve();
  fleet.Lose("w0");
  EXPECT_STATUS(fleet.holder("w1").notices().at(0).reason, absl::StatusCode::kUnavailable,
                "rank 0 (worker w0) was lost while serving: its connection broke");
  EXPECT_EQ(fleet.events(EventKind::kWorkerLost).at(0).phase, "serving");
  EXPECT_NE(fleet.state(), ReplicaState::kServing);
}

TEST(Replica, AServingRankThatGivesItsEpochUpEndsIt) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(2);
  fleet.Serve();
  fleet.Heartbeat("w1", 1, {{.epoch = Epoch(9), .state = WorkerState::kFailed}});
  fleet.coordinator().Tick();
  EXPECT_EQ(fleet.state(), ReplicaState::kServing) << "that was another epoch";
  fleet.Heartbeat("w1", 1,
                  {{.epoch = Epoch(1),
                    .state = WorkerState::kFailed,
                    .step = StepNumber(41),
                    .failure = "rank 0 is missing"}});
  fleet.coordinator().Tick();
  EXPECT_EQ(fleet.state(), ReplicaState::kFailed);
  EXPECT_STATUS(fleet.replica().failure, absl::StatusCode::kAborted,
                "rank 1 (worker w1) failed while serving: its worker gave the epoch up after step "
                "41: rank 0 is missing");
  // Nobody left, and what has served can serve again.
  fleet.Release();
  fleet.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet.state(), ReplicaState::kForming);
  EXPECT_EQ(fleet.epoch(), 2u);
}

TEST(Replica, WhatFailsSoonAfterItServesPausesLongerEachTime) {
  TestFleet fleet({.cp = 2});
  fleet.EnlistAll(2);
  std::vector<absl::Duration> pauses;
  for (int i = 0; i < 4; ++i) {
    fleet.Serve();
    fleet.Heartbeat("w1", 1, {{.epoch = Epoch(fleet.epoch()), .state = WorkerState::kFailed}});
    const absl::Time failed = fleet.clock().Now();
    fleet.coordinator().Tick();
    fleet.Release();
    while (fleet.state() != ReplicaState::kForming) fleet.Advance(absl::Milliseconds(50));
    pauses.push_back(fleet.clock().Now() - failed);
  }
  EXPECT_TRUE(std::is_sorted(pauses.begin(), pauses.end()));
  EXPECT_GE(pauses.back(), 4 * pauses.front());
}

}  // namespace
}  // namespace muster
