// A replica that changes its shape while it serves, and what becomes of it when somebody fails.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "coordinator/replica.h"
#include "coordinator/test_fleet.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr FormingPhase kPreparing[] = {FormingPhase::kAssign, FormingPhase::kLoad,
                                       FormingPhase::kWarmup, FormingPhase::kCapture};

// Two ranks serve, and two standbys wait.
class ResizeTest : public ::testing::Test {
 protected:
  ResizeTest() {
    fleet_.EnlistAll(4);
    fleet_.Serve();
    fleet_.Release();
  }

  void ExpectServingAsBefore() {
    EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
    EXPECT_EQ(fleet_.epoch(), 1u);
    EXPECT_EQ(fleet_.workers(), "w0 w1");
    EXPECT_TRUE(fleet_.holder("w1").notices().empty() ||
                fleet_.holder("w1").notices()[0].epoch == Epoch(2));
  }
  void ExpectRolledBack(const std::string& message) {
    ExpectServingAsBefore();
    EXPECT_EQ(fleet_.resize().stage, ResizeStage::kRolledBack);
    fleet_.Release();
    const Operation operation = fleet_.operation();
    EXPECT_EQ(operation.state, OperationState::kRolledBack);
    EXPECT_STATUS(operation.failure, operation.failure.code(), message);
    EXPECT_EQ(fleet_.events(EventKind::kRolledBack).size(), 1u);
    EXPECT_EQ(fleet_.events(EventKind::kRolledBack)[0].operation_id, "op1");
    EXPECT_TRUE(fleet_.events(EventKind::kEpochFailed).empty());
  }
  void ExpectFailed(const std::string& message) {
    EXPECT_NE(fleet_.state(), ReplicaState::kServing);
    fleet_.Release();
    const Operation operation = fleet_.operation();
    EXPECT_EQ(operation.state, OperationState::kFailed);
    EXPECT_STATUS(operation.failure, operation.failure.code(), message);
  }

  TestFleet fleet_{{.cp = 2}};
};

TEST_F(ResizeTest, PreparesBesideWhatServesThenSwitchesThenReleases) {
  fleet_.StartScale(4);
  ExpectServingAsBefore();
  EXPECT_EQ(fleet_.resize().stage, ResizeStage::kPreparing);
  EXPECT_EQ(fleet_.resize().ranks.size(), 4u);
  for (FormingPhase phase : kPreparing) EXPECT_EQ(fleet_.FinishPhase(phase), 4);
  EXPECT_EQ(fleet_.resize().stage, ResizeStage::kActivating);
  ExpectServingAsBefore();
  EXPECT_TRUE(fleet_.client().TakeReleases().empty());
  fleet_.FinishRank(FormingPhase::kActivate, "w0",
                    PhaseResult{.takeover = {.pause = absl::Milliseconds(4),
                                             .kv_blocks_moved = 21,
                                             .kv_blocks_kept = 20}});
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
  EXPECT_EQ(fleet_.epoch(), 2u);
  EXPECT_EQ(fleet_.workers(), "w0 w1 w2 w3");
  EXPECT_EQ(fleet_.replica().ledgers.size(), 4u);
  EXPECT_EQ(fleet_.resize().stage, ResizeStage::kReleasing);
  EXPECT_EQ(fleet_.operation().state, OperationState::kRunning);
  EXPECT_EQ(fleet_.Release(), (std::vector<std::string>{"w0", "w1"}));
  EXPECT_EQ(fleet_.resize().stage, ResizeStage::kDone);
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
  const std::vector<Event> resized = fleet_.events(EventKind::kResized);
  ASSERT_EQ(resized.size(), 1u);
  EXPECT_EQ(resized[0].message,
            "cp 2 to 4: prepare less than 1ms, pause 4ms, 21 KV blocks moved, 20 kept");
  EXPECT_EQ(resized[0].operation_id, "op1");
  EXPECT_EQ(fleet_.coordinator().fleet().GetTopology().config.cp, 4);
}

TEST_F(ResizeTest, EachCallSaysWhatItIsAbout) {
  fleet_.StartScale(4);
  const auto assign = fleet_.TakeCall(FormingPhase::kAssign, "w3");
  ASSERT_TRUE(assign.inputs.predecessor.has_value());
  EXPECT_EQ(assign.inputs.predecessor->epoch, Epoch(1));
  EXPECT_GT(assign.inputs.reserve_bytes, 0u);
  assign.done(PhaseResult{});
  fleet_.FormUntil(FormingPhase::kActivate);
  const auto activate = fleet_.TakeCall(FormingPhase::kActivate, "w0");
  EXPECT_EQ(activate.target.epoch, Epoch(2));
  EXPECT_EQ(activate.inputs.from_epoch, Epoch(1));
  EXPECT_EQ(activate.inputs.agreement_digest, "00000000000000ab");
  EXPECT_EQ(activate.inputs.takeover_timeout, absl::Minutes(10));
  EXPECT_EQ(fleet_.FinishPhase(FormingPhase::kActivate), 0) << "the leader alone is asked";
}

TEST_F(ResizeTest, LeaversBecomeStandbysAndCanBeRecruitedAgain) {
  fleet_.StartScale(1);
  fleet_.Serve();
  fleet_.Release();
  EXPECT_EQ(fleet_.workers(), "w0");
  fleet_.StartScale(2, "op2");
  fleet_.Serve();
  EXPECT_EQ(fleet_.Release(), std::vector<std::string>{"w0"});
  EXPECT_EQ(fleet_.operation("op2").state, OperationState::kDone);
  EXPECT_EQ(fleet_.workers(), "w0 w1");
}

TEST_F(ResizeTest, WhatIsGivenUpWhileItIsReleasedDoesNotFailWhatServes) {
  fleet_.StartScale(1);
  fleet_.Serve();
  fleet_.Heartbeat("w0", 1, {{.epoch = Epoch(1), .state = WorkerState::kFailed}});
  fleet_.coordinator().Tick();
  fleet_.Lose("w1");
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
  EXPECT_EQ(fleet_.epoch(), 2u);
}

TEST_F(ResizeTest, AReplicaIsFormedAgainInItsNewShape) {
  fleet_.StartScale(4);
  fleet_.Serve();
  fleet_.Release();
  fleet_.Lose("w3");
  fleet_.Release();
  fleet_.Enlist("w9");
  fleet_.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet_.workers(), "w0 w1 w2 w9");
}

class ResizeInPhase : public ResizeTest, public ::testing::WithParamInterface<FormingPhase> {
 protected:
  ResizeInPhase() {
    fleet_.StartScale(4);
    fleet_.FormUntil(GetParam());
  }
  std::string phase() { return FormingPhaseName(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Preparing, ResizeInPhase, ::testing::ValuesIn(kPreparing),
                         [](const auto& it) { return FormingPhaseName(it.param); });

TEST_P(ResizeInPhase, ALostRecruitIsRolledBackAndNamed) {
  fleet_.Lose("w3");
  EXPECT_EQ(fleet_.events(EventKind::kWorkerLost).at(0).phase, phase());
  EXPECT_EQ(fleet_.holder("w2").notices().at(0).epoch, Epoch(2));
  ExpectRolledBack("rank 3 (worker w3) was lost in " + phase() + ": its connection broke");
}

TEST_P(ResizeInPhase, ARecruitThatFailsIsRolledBackAndNamedAndGivesBackTheNewEpochAlone) {
  fleet_.FinishRank(GetParam(), "w2", absl::ResourceExhaustedError("0.7 GiB free"));
  const auto releases = fleet_.client().TakeReleases();
  ASSERT_EQ(releases.size(), 4u);
  for (const auto& [target, done] : releases) {
    EXPECT_EQ(target.epoch, Epoch(2));
    EXPECT_EQ(fleet_.operation().state, OperationState::kRunning) << "until all is given back";
    done(absl::OkStatus());
  }
  ExpectRolledBack("rank 2 (worker w2) failed in " + phase() + ": 0.7 GiB free");
}

TEST_P(ResizeInPhase, ASurvivorWhoseCallBreaksIsRolledBackOnlyOnceItReports) {
  fleet_.FinishRank(GetParam(), "w1", absl::UnavailableError("its connection broke"));
  fleet_.coordinator().Tick();
  EXPECT_EQ(fleet_.resize().stage, ResizeStage::kPreparing);
  fleet_.clock().Advance(absl::Milliseconds(100));
  fleet_.Heartbeat("w1", 2, {{.epoch = Epoch(1), .state = WorkerState::kServing}});
  fleet_.coordinator().Tick();
  ExpectRolledBack("its connection broke");
}

TEST_P(ResizeInPhase, ASurvivorWhoseCallBreaksSinceItIsLostFailsBothEpochs) {
  fleet_.FinishRank(GetParam(), "w1", absl::UnavailableError("its connection broke"));
  fleet_.Lose("w1");
  ExpectFailed("rank 1 (worker w1) was lost while serving");
  EXPECT_TRUE(fleet_.events(EventKind::kRolledBack).empty());
}

TEST_P(ResizeInPhase, ASurvivorThatGaveBothEpochsUpFailsBoth) {
  fleet_.FinishRank(GetParam(), "w1", absl::AbortedError("the ring is torn"));
  fleet_.clock().Advance(absl::Milliseconds(100));
  fleet_.Heartbeat("w1", 2,
                   {{.epoch = Epoch(1), .state = WorkerState::kFailed, .failure = "ring is torn"}});
  fleet_.coordinator().Tick();
  ExpectFailed("its worker gave the epoch up after step 0: ring is torn");
}

TEST_P(ResizeInPhase, AFrozenRecruitIsRolledBack) {
  fleet_.Advance(absl::Seconds(2), absl::Milliseconds(500), {"w3"});
  ExpectRolledBack("rank 3 (worker w3) was lost in " + phase() + ": it sent no heartbeat");
}

TEST_P(ResizeInPhase, ARankWithoutProgressIsRolledBack) {
  fleet_.Advance(absl::Seconds(63));
  ExpectRolledBack("rank 3 (worker w3) made no progress in " + phase());
}

TEST_P(ResizeInPhase, ALostSurvivorFailsBothEpochs) {
  fleet_.Lose("w1");
  ExpectFailed("rank 1 (worker w1) was lost while serving");
  fleet_.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet_.workers(), "w0 w2") << "in the shape of before";
  EXPECT_EQ(fleet_.epoch(), 3u);
}

TEST_P(ResizeInPhase, ALostLeaderFailsBothEpochs) {
  fleet_.Lose("w0");
  ExpectFailed("rank 0 (worker w0) was lost while serving");
}

TEST_P(ResizeInPhase, ItCanBeCancelled) {
  ASSERT_OK(fleet_.coordinator().fleet().CancelOperation("op1"));
  ExpectRolledBack("operation 'op1' was cancelled before it took effect.");
  EXPECT_EQ(DetailOf(fleet_.operation().failure).reason, ErrorReason::kOperationCancelled);
}

TEST_P(ResizeInPhase, ALateAnswerOfWhatWasRolledBackChangesNothing) {
  const auto late = fleet_.TakeCall(GetParam(), "w2");
  fleet_.Lose("w3");
  fleet_.Release();
  late.on_progress({.phase = "load"});
  late.done(absl::InternalError("too late"));
  ExpectServingAsBefore();
}

TEST_F(ResizeTest, WhatTakesTooLongIsRolledBack) {
  OperationRequest request{.id = "op1", .timeout = absl::Seconds(30)};
  request.sizes.cp = 4;
  fleet_.Operate(request);
  fleet_.DescribeCaches();
  fleet_.FormUntil(FormingPhase::kWarmup);
  fleet_.Advance(absl::Seconds(30));
  ExpectRolledBack("epoch 2 was not prepared within 30 s: rank 0 (worker w0) is in warmup");
}

TEST_F(ResizeTest, WhoIsLateIsNamedAndNobodyElse) {
  OperationRequest request{.id = "op1", .timeout = absl::Seconds(30)};
  request.sizes.cp = 4;
  fleet_.Operate(request);
  fleet_.DescribeCaches();
  fleet_.FormUntil(FormingPhase::kLoad);
  for (const char* id : {"w0", "w1", "w3"}) {
    fleet_.FinishRank(FormingPhase::kLoad, id, PhaseResult{});
  }
  fleet_.ReportProgress(FormingPhase::kLoad, "w2", {"load", 3, 7, "files"});
  fleet_.Advance(absl::Seconds(30));
  ExpectRolledBack(
      "epoch 2 was not prepared within 30 s: rank 2 (worker w2) is in load, 3 of 7 files");
  const ErrorDetail detail = DetailOf(fleet_.operation().failure);
  EXPECT_EQ(fleet_.operation().failure.message().find("w0"), absl::string_view::npos);
  EXPECT_EQ(detail.ranks, std::vector<GlobalRank>{GlobalRank(2)});
  EXPECT_EQ(detail.workers, std::vector<std::string>{"w2"});
  EXPECT_EQ(detail.phase, "load");
}

// From one sent Activate on, the leader decides.
class ResizeActivating : public ResizeTest {
 protected:
  void Activate(int cp) {
    fleet_.StartScale(cp);
    fleet_.FormUntil(FormingPhase::kActivate);
  }
  void LeaderReports(std::vector<EpochReport> epochs) {
    fleet_.clock().Advance(absl::Milliseconds(100));
    fleet_.Heartbeat("w0", 2, std::move(epochs));
    fleet_.coordinator().Tick();
  }
};

TEST_F(ResizeActivating, AnErrorLeavesTheFormerEpochServing) {
  Activate(4);
  fleet_.FinishRank(FormingPhase::kActivate, "w0",
                    MakeError(absl::StatusCode::kDataLoss, "block 7 is not what was sent",
                              {.reason = ErrorReason::kKvCorrupt}));
  LeaderReports({{.epoch = Epoch(1), .state = WorkerState::kServing}});
  ExpectRolledBack("block 7 is not what was sent");
}

TEST_F(ResizeActivating, ItCanNoLongerBeCancelled) {
  Activate(4);
  EXPECT_STATUS(fleet_.coordinator().fleet().CancelOperation("op1"),
                absl::StatusCode::kFailedPrecondition, "cp 2 to 4 takes effect already.");
}

TEST_F(ResizeActivating, ALostRecruitIsToldToTheNewEpochAndTheLeaderSaysWhichOneWon) {
  Activate(4);
  fleet_.Lose("w3");
  EXPECT_EQ(fleet_.holder("w0").notices().at(0).epoch, Epoch(2));
  EXPECT_EQ(fleet_.resize().stage, ResizeStage::kActivating);
  fleet_.FinishRank(FormingPhase::kActivate, "w0", absl::AbortedError("epoch 2 was aborted"));
  LeaderReports({{.epoch = Epoch(1), .state = WorkerState::kServing}});
  ExpectRolledBack("rank 3 (worker w3) was lost in activate");
}

TEST_F(ResizeActivating, ALostRecruitOfAnEpochThatWonFailsItAsAnyThatServes) {
  Activate(4);
  fleet_.Lose("w3");
  fleet_.FinishRank(FormingPhase::kActivate, "w0", PhaseResult{});
  EXPECT_EQ(fleet_.epoch(), 2u);
  ExpectFailed("rank 3 (worker w3) was lost in activate");
}

TEST_F(ResizeActivating, ALostLeaverOfAnEpochThatLostChangesNothing) {
  Activate(1);
  fleet_.Lose("w1");
  EXPECT_EQ(fleet_.holder("w0").notices().at(0).epoch, Epoch(1));
  fleet_.FinishRank(FormingPhase::kActivate, "w0", PhaseResult{});
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
  EXPECT_EQ(fleet_.epoch(), 2u);
  fleet_.Release();
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
}

TEST_F(ResizeActivating, ALostLeaverBeforeTheSwitchFailsTheReplica) {
  Activate(1);
  fleet_.Lose("w1");
  fleet_.FinishRank(FormingPhase::kActivate, "w0", absl::AbortedError("rank 1 is gone"));
  LeaderReports({{.epoch = Epoch(1), .state = WorkerState::kServing}});
  ExpectFailed("rank 1 (worker w1) was lost while serving");
}

TEST_F(ResizeActivating, ALostLeaderFailsTheReplica) {
  Activate(4);
  fleet_.Lose("w0");
  ExpectFailed("rank 0 (worker w0) was lost while serving");
}

TEST_F(ResizeActivating, ALostSurvivorFailsTheReplica) {
  Activate(4);
  fleet_.Lose("w1");
  ExpectFailed("rank 1 (worker w1) was lost while serving");
}

TEST_F(ResizeActivating, AnEpochThatIsReportedFailedAfterAnErrorIsFailed) {
  Activate(4);
  fleet_.Heartbeat("w0", 1,
                   {{.epoch = Epoch(1), .state = WorkerState::kFailed, .failure = "ring is torn"}});
  fleet_.coordinator().Tick();
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing) << "its answer tells";
  fleet_.FinishRank(FormingPhase::kActivate, "w0", absl::AbortedError("both are lost"));
  LeaderReports({{.epoch = Epoch(1), .state = WorkerState::kFailed, .failure = "ring is torn"}});
  ExpectFailed("its worker gave the epoch up after step 0: ring is torn");
}

TEST_F(ResizeActivating, WhatIsLostAfterTheSwitchIsNotRolledBack) {
  Activate(4);
  fleet_.FinishRank(FormingPhase::kActivate, "w0", absl::AbortedError("rank 3 is gone"));
  LeaderReports({{.epoch = Epoch(1), .state = WorkerState::kDraining},
                 {.epoch = Epoch(2), .state = WorkerState::kFailed}});
  ExpectFailed("rank 3 is gone");
  EXPECT_TRUE(fleet_.events(EventKind::kRolledBack).empty());
}

TEST_F(ResizeActivating, ALeaderThatHandedOverToWhatWasGivenUpIsNotTakenToServe) {
  Activate(4);
  fleet_.FinishRank(FormingPhase::kActivate, "w0", absl::UnavailableError("its connection broke"));
  LeaderReports({{.epoch = Epoch(1), .state = WorkerState::kServing}});
  ASSERT_EQ(fleet_.resize().stage, ResizeStage::kRolledBack)
      << "by a report from before the switch";
  LeaderReports({{.epoch = Epoch(1), .state = WorkerState::kDraining}});
  EXPECT_EQ(fleet_.state(), ReplicaState::kFailed);
  EXPECT_STATUS(fleet_.replica().failure, absl::StatusCode::kAborted, "it has handed over");
}

TEST_F(ResizeActivating, AnAnswerThatGotLostIsReplacedByWhatTheLeaderReports) {
  Activate(4);
  fleet_.FinishRank(FormingPhase::kActivate, "w0", absl::UnavailableError("its connection broke"));
  EXPECT_EQ(fleet_.resize().stage, ResizeStage::kActivating) << "the leader is to report first";
  LeaderReports({{.epoch = Epoch(1), .state = WorkerState::kDraining},
                 {.epoch = Epoch(2), .state = WorkerState::kServing}});
  EXPECT_EQ(fleet_.epoch(), 2u);
  fleet_.Release();
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
}

}  // namespace
}  // namespace muster
