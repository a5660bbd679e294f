#include "coordinator/departures.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "coordinator/test_fleet.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

using Ids = std::vector<std::string>;

class DeparturesTest : public ::testing::Test {
 protected:
  void Serve(int workers) {
    fleet_.EnlistAll(workers);
    fleet_.Serve();
  }
  // A drain of the coordinator's own, up to its end.
  void HandOver() {
    ASSERT_EQ(fleet_.DescribeCaches(), 1);
    fleet_.Serve();
    fleet_.Release();
  }
  Ids farewells(const std::string& id) { return fleet_.holder(id).farewells(); }
  bool IsLetGo(const std::string& id) { return farewells(id).size() == 1; }
  std::string EndOfEpoch() {
    const std::vector<Event> events = fleet_.events(EventKind::kEpochEnded);
    return events.size() == 1 ? events[0].message : "";
  }
  void ExpectNobodyFailed() {
    for (const EventKind kind : {EventKind::kEpochFailed, EventKind::kWorkerLost}) {
      EXPECT_TRUE(fleet_.events(kind).empty()) << fleet_.events(kind).front().message;
    }
  }

  TestFleet fleet_{{.cp = 2}};
};

TEST_F(DeparturesTest, AWorkerWithoutARankIsLetGoAtOnceAndGetsNone) {
  fleet_.EnlistAll(1);
  fleet_.Leave("w0");
  EXPECT_EQ(farewells("w0"), Ids{""});
  fleet_.Enlist("w1");
  fleet_.Advance(absl::Seconds(2));
  EXPECT_EQ(fleet_.state(), ReplicaState::kWaiting) << "w0 counts no more";
  fleet_.Lose("w0");
  EXPECT_EQ(fleet_.events(EventKind::kWorkerLeaving).at(0).message, "worker w0 is leaving");
  EXPECT_EQ(fleet_.events(EventKind::kWorkerLeft).at(0).message, "worker w0 has left");
  ExpectNobodyFailed();
}

TEST_F(DeparturesTest, AStandbyTakesTheRankBeforeTheWorkerIsLetGo) {
  Serve(3);
  fleet_.Leave("w1");
  EXPECT_EQ(fleet_.events(EventKind::kWorkerLeaving).at(0).message,
            "worker w1 is leaving and hands rank 1 (serving) over");
  ASSERT_EQ(fleet_.DescribeCaches(), 1);
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(), "w0 w2");
  EXPECT_FALSE(IsLetGo("w1")) << "it has yet to give back";
  fleet_.Release();
  EXPECT_EQ(farewells("w1"), Ids{"worker w1 drained, its rank moved to w2"});
  fleet_.Lose("w1");
  EXPECT_EQ(fleet_.events(EventKind::kWorkerLeft).size(), 1u);
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
  ExpectNobodyFailed();
}

TEST_F(DeparturesTest, ItNeedNotWaitForOthersToGiveBack) {
  Serve(3);
  fleet_.Leave("w1");
  ASSERT_EQ(fleet_.DescribeCaches(), 1);
  fleet_.Serve();
  auto releases = fleet_.client().TakeReleases();
  ASSERT_EQ(releases.size(), 2u);
  releases[1].second(absl::OkStatus());
  EXPECT_EQ(farewells("w1"), Ids{"worker w1 drained, its rank moved to w2"});
  EXPECT_EQ(fleet_.coordinator().fleet().ListOperations()[0].state, OperationState::kRunning);
  releases[0].second(absl::OkStatus());
  EXPECT_EQ(fleet_.coordinator().fleet().ListOperations()[0].state, OperationState::kDone);
}

TEST_F(DeparturesTest, WithoutAStandbyTheReplicaShrinks) {
  Serve(2);
  fleet_.Leave("w1");
  HandOver();
  EXPECT_EQ(fleet_.workers(), "w0");
  EXPECT_EQ(farewells("w1"), Ids{"worker w1 drained, cp 2 to 1"});
  ExpectNobodyFailed();
}

TEST_F(DeparturesTest, WhatIsSaidAgainChangesNothing) {
  Serve(3);
  for (int i = 0; i < 3; ++i) fleet_.Leave("w1", absl::Seconds(30 - i));
  HandOver();
  fleet_.Leave("w1", absl::Seconds(1));
  EXPECT_TRUE(IsLetGo("w1"));
  EXPECT_EQ(fleet_.events(EventKind::kWorkerLeaving).size(), 1u);
  EXPECT_EQ(fleet_.coordinator().fleet().ListOperations().size(), 1u);
}

TEST_F(DeparturesTest, ALeaderAnswersWhatIsInFlightAndAnotherEpochIsFormedWithoutIt) {
  Serve(3);
  fleet_.Leave("w0");
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
  EXPECT_FALSE(IsLetGo("w0"));
  EXPECT_EQ(fleet_.FinishDrains(3), Ids{"w0"});
  EXPECT_EQ(EndOfEpoch(),
            "the epoch ended, since rank 0 (worker w0) is ending and leads the epoch: all requests "
            "are answered, 3 sequences to be computed again");
  fleet_.Release();
  EXPECT_TRUE(IsLetGo("w0"));
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(), "w2 w1") << "who is left keeps its rank";
  fleet_.Lose("w0");
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
  ExpectNobodyFailed();
}

TEST_F(DeparturesTest, ALeaderWithoutAStandbyLeavesASmallerReplica) {
  Serve(2);
  fleet_.Leave("w0");
  fleet_.FinishDrains(0);
  fleet_.Release();
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(), "w1");
  EXPECT_EQ(fleet_.replica().topology->config.cp, 1);
  ExpectNobodyFailed();
}

TEST_F(DeparturesTest, OtherRanksAreToldWhoEnds) {
  Serve(3);
  fleet_.Leave("w0");
  fleet_.FinishDrains(1);
  ASSERT_EQ(fleet_.holder("w1").notices().size(), 1u);
  const absl::Status reason = fleet_.holder("w1").notices()[0].reason;
  EXPECT_STATUS(reason, absl::StatusCode::kUnavailable, "rank 0 (worker w0) is ending");
  EXPECT_TRUE(DetailOf(reason).retriable);
  EXPECT_EQ(DetailOf(reason).workers, Ids{"w0"});
}

TEST_F(DeparturesTest, WhatALeaderCouldNotAnswerIsTold) {
  Serve(3);
  fleet_.Leave("w0", absl::Seconds(10));
  auto drains = fleet_.client().TakeDrains();
  ASSERT_EQ(drains.size(), 1u);
  EXPECT_EQ(drains[0].timeout, absl::Milliseconds(9500));
  drains[0].done(absl::DeadlineExceededError("2 requests are still in flight after 9.5s"));
  EXPECT_NE(EndOfEpoch().find(": 2 requests are still in flight after 9.5s"), std::string::npos);
  fleet_.Release();
  EXPECT_TRUE(IsLetGo("w0"));
}

TEST(Departures, TheOnlyWorkerEndsItsReplica) {
  TestFleet fleet({});
  fleet.EnlistAll(1);
  fleet.Serve();
  fleet.Leave("w0");
  EXPECT_EQ(fleet.FinishDrains(0), Ids{"w0"});
  fleet.Release();
  EXPECT_EQ(fleet.holder("w0").farewells(), Ids{"epoch 1 ended with it"});
  fleet.Advance(absl::Seconds(2));
  EXPECT_EQ(fleet.state(), ReplicaState::kWaiting);
}

TEST_F(DeparturesTest, ARankThatNobodyCanTakeEndsTheEpoch) {
  Serve(2);
  fleet_.Leave("w1");
  CacheSummary full = TestFleet::TestCache();
  full.blocks_per_rank = 16;
  fleet_.DescribeCaches(full);
  EXPECT_EQ(fleet_.FinishDrains(8), Ids{"w0"}) << "the leader answers what is in flight";
  EXPECT_NE(EndOfEpoch().find("rank 1 (worker w1) is ending and nobody can take over: cannot"),
            std::string::npos)
      << EndOfEpoch();
  fleet_.Release();
  EXPECT_TRUE(IsLetGo("w1"));
  EXPECT_FALSE(IsLetGo("w0"));
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(), "w0");
  ExpectNobodyFailed();
}

TEST_F(DeparturesTest, AnotherStandbyIsTriedWhenOneIsLostOnTheWay) {
  Serve(4);
  fleet_.Leave("w1");
  ASSERT_EQ(fleet_.DescribeCaches(), 1);
  fleet_.FormUntil(FormingPhase::kLoad);
  fleet_.Lose("w2");
  fleet_.Release();
  HandOver();
  EXPECT_EQ(fleet_.workers(), "w0 w3");
  EXPECT_TRUE(IsLetGo("w1"));
  EXPECT_TRUE(fleet_.events(EventKind::kEpochFailed).empty());
}

TEST_F(DeparturesTest, AStandbyThatHangsLeavesTimeToAnswerWhatIsInFlight) {
  Serve(3);
  fleet_.Leave("w1", absl::Seconds(10));
  ASSERT_EQ(fleet_.DescribeCaches(), 1);
  fleet_.FormUntil(FormingPhase::kWarmup);
  fleet_.Advance(absl::Seconds(8));
  EXPECT_EQ(fleet_.events(EventKind::kRolledBack).size(), 1u);
  fleet_.Release();
  EXPECT_EQ(fleet_.FinishDrains(0), Ids{"w0"});
  EXPECT_NE(EndOfEpoch().find("was not handed over in time"), std::string::npos);
  fleet_.Release();
  EXPECT_TRUE(IsLetGo("w1"));
}

TEST_F(DeparturesTest, WhatAHangingStandbyHasYetToGiveBackIsNotWaitedFor) {
  Serve(3);
  fleet_.Leave("w1", absl::Seconds(10));
  fleet_.DescribeCaches();
  fleet_.Advance(absl::Seconds(9));
  EXPECT_EQ(fleet_.FinishDrains(0), Ids{"w0"}) << "w2 has not answered its Release";
  EXPECT_NE(EndOfEpoch(), "");
}

TEST_F(DeparturesTest, AnEpochThatFormsIsFormedWithoutTheWorker) {
  fleet_.EnlistAll(3);
  fleet_.FormUntil(FormingPhase::kWarmup);
  fleet_.Leave("w1");
  EXPECT_EQ(EndOfEpoch(),
            "the epoch ended, since rank 1 (worker w1) is ending: it did not serve yet");
  fleet_.Release();
  EXPECT_TRUE(IsLetGo("w1"));
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(), "w0 w2");
  ExpectNobodyFailed();
}

TEST_F(DeparturesTest, AnEpochThatFormsWaitsForAnotherWorkerRatherThanShrink) {
  fleet_.EnlistAll(2);
  fleet_.FormUntil(FormingPhase::kLoad);
  fleet_.Leave("w1");
  fleet_.Release();
  fleet_.Advance(absl::Seconds(2));
  EXPECT_EQ(fleet_.state(), ReplicaState::kWaiting);
  fleet_.Enlist("w2");
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(), "w0 w2");
}

TEST_F(DeparturesTest, ARecruitThatLeavesIsRolledBack) {
  Serve(3);
  fleet_.StartScale(3);
  fleet_.FormUntil(FormingPhase::kCapture);
  fleet_.Leave("w2");
  EXPECT_EQ(fleet_.resize().stage, ResizeStage::kRolledBack);
  EXPECT_STATUS(fleet_.resize().failure, absl::StatusCode::kUnavailable, "worker w2 is ending");
  EXPECT_FALSE(IsLetGo("w2"));
  fleet_.Release();
  EXPECT_TRUE(IsLetGo("w2"));
  EXPECT_EQ(fleet_.workers(), "w0 w1");
  EXPECT_EQ(fleet_.epoch(), 1u);
  ExpectNobodyFailed();
}

TEST_F(DeparturesTest, ASurvivorThatLeavesIsHandedOverOnceWhatCountedOnItIsUndone) {
  Serve(3);
  fleet_.StartScale(3);
  fleet_.Leave("w1");
  EXPECT_EQ(fleet_.resize().stage, ResizeStage::kRolledBack);
  fleet_.Release();
  fleet_.FinishPhase(FormingPhase::kAssign);
  HandOver();
  EXPECT_EQ(fleet_.workers(), "w0 w2");
  EXPECT_TRUE(IsLetGo("w1"));
  ExpectNobodyFailed();
}

TEST_F(DeparturesTest, WhatTakesEffectAlreadyIsWaitedFor) {
  Serve(4);
  fleet_.StartScale(3);
  fleet_.FormUntil(FormingPhase::kActivate);
  fleet_.Leave("w2");
  EXPECT_EQ(fleet_.resize().stage, ResizeStage::kActivating);
  fleet_.FinishPhase(FormingPhase::kActivate);
  fleet_.Release();
  EXPECT_EQ(fleet_.workers(), "w0 w1 w2");
  HandOver();
  EXPECT_EQ(fleet_.workers(), "w0 w1 w3");
  EXPECT_TRUE(IsLetGo("w2"));
}

TEST_F(DeparturesTest, AChangeThatLeavesTheWorkerOutGoesOn) {
  Serve(2);
  fleet_.StartScale(1);
  fleet_.Leave("w1");
  fleet_.Serve();
  fleet_.Release();
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
  EXPECT_TRUE(IsLetGo("w1"));
}

TEST_F(DeparturesTest, WhenAllLeaveNothingIsMovedBetweenThem) {
  Serve(3);
  for (const char* id : {"w2", "w1", "w0"}) fleet_.Leave(id);
  fleet_.DescribeCaches();
  fleet_.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet_.FinishDrains(2), Ids{"w0"});
  fleet_.Release();
  for (const char* id : {"w0", "w1", "w2"}) EXPECT_TRUE(IsLetGo(id)) << id;
  ExpectNobodyFailed();
}

TEST_F(DeparturesTest, WhoLeavesIsNotCountedOnByOtherChanges) {
  Serve(4);
  fleet_.Leave("w2");
  EXPECT_TRUE(IsLetGo("w2"));
  const TestFleet::Answer answer = fleet_.Scale(4);
  fleet_.DescribeCaches();
  EXPECT_EQ(DetailOf(answer->value()).workers, Ids{"w2"});
}

TEST_F(DeparturesTest, AWorkerThatEndsBeforeItIsLetGoIsLost) {
  Serve(3);
  fleet_.Leave("w1");
  fleet_.Lose("w1");
  EXPECT_EQ(fleet_.events(EventKind::kWorkerLost).at(0).message,
            "worker w1 with rank 1 (serving) was lost: it ended before its rank was handed over");
  EXPECT_EQ(fleet_.events(EventKind::kEpochFailed).size(), 1u);
  EXPECT_TRUE(fleet_.events(EventKind::kWorkerLeft).empty());
}

TEST_F(DeparturesTest, ALeaderThatDiesWhileItDrainsIsLostAndTheAnswerComesToNothing) {
  Serve(3);
  fleet_.Leave("w0");
  fleet_.Lose("w0");
  EXPECT_EQ(fleet_.events(EventKind::kEpochFailed).size(), 1u);
  fleet_.FinishDrains(absl::UnavailableError("its connection broke"));
  EXPECT_EQ(EndOfEpoch(), "");
  fleet_.Release();
  fleet_.Advance(absl::Seconds(1));
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(), "w2 w1");
}

TEST_F(DeparturesTest, AWorkerThatIsStartedAgainIsAStandby) {
  Serve(2);
  fleet_.Leave("w1");
  HandOver();
  fleet_.Lose("w1");
  fleet_.Enlist("w1");
  fleet_.StartScale(2, "back");
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(), "w0 w1");
}

}  // namespace
}  // namespace muster
