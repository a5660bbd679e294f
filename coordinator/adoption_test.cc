// A coordinator that comes after another one, and finds workers that serve.
#include "coordinator/adoption.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "coordinator/placement.h"
#include "coordinator/test_fleet.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr uint64_t kFormerTerm = 4;

WorkerInfo Worker(int index) {
  return TestWorker(absl::StrCat("w", index), static_cast<uint64_t>(index) + 1);
}

// As the former coordinator planned it, on w0, w1, ...
Topology Former(uint64_t epoch, const ParallelConfig& config, int replica = 0) {
  PlanRequest request{.config = config,
                      .term = Term(kFormerTerm),
                      .slots = {{.replica = ReplicaIndex(replica), .epoch = Epoch(epoch)}}};
  for (int i = 0; i < config.world_size(); ++i) {
    request.inventory.push_back(ToCandidate(Worker(i)));
  }
  return PlanTopology(request).value().topologies.front();
}

class AdoptionTest : public ::testing::Test {
 protected:
  // A worker that was in these, of which it serves the ones so said.
  struct Was {
    Topology topology;
    WorkerState state = WorkerState::kServing;
  };
  void Return(int index, const std::vector<Was>& held) {
    WorkerInfo worker = Worker(index);
    worker.term = Term(kFormerTerm);
    for (const Was& it : held) {
      worker.epochs.push_back(
          {.replica = it.topology.replica, .epoch = it.topology.epoch, .state = it.state});
      if (it.state == WorkerState::kServing) worker.serving.push_back(it.topology);
    }
    fleet_.Enlist(std::move(worker));
  }
  // Replica 0's, by worker id and epoch, "w0/7".
  std::vector<std::string> Released() {
    std::vector<std::string> released;
    for (auto& [target, done] : fleet_.client().TakeReleases()) {
      released.push_back(absl::StrCat(target.placement.worker_id, "/", target.epoch.value()));
      EXPECT_EQ(target.term, fleet_.coordinator().term());
      done(absl::OkStatus());
    }
    return released;
  }

  TestFleet fleet_{{.cp = 2}};
};

TEST_F(AdoptionTest, WhatServesOnAllItsRanksServesOnUnderAHigherTerm) {
  const Topology topology = Former(7, {.cp = 2});
  Return(0, {{topology}});
  EXPECT_EQ(fleet_.state(), ReplicaState::kWaiting);
  EXPECT_EQ(fleet_.coordinator().term(), Term(kFormerTerm + 1));
  Return(1, {{topology}});
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
  EXPECT_EQ(fleet_.replica().topology, topology);
  EXPECT_TRUE(Released().empty());
  EXPECT_TRUE(fleet_.client().TakePhases().empty());
  ASSERT_EQ(fleet_.events(EventKind::kAdopted).size(), 1u);
  EXPECT_EQ(fleet_.events(EventKind::kAdopted)[0].message,
            "adopted as it serves on 2 ranks, planned in term 4");
  EXPECT_EQ(fleet_.coordinator().fleet().ListWorkers()[1].rank, GlobalRank(1));
}

TEST_F(AdoptionTest, AnAdoptedReplicaChangesItsShapeInAHigherEpoch) {
  const Topology topology = Former(7, {.cp = 2});
  for (int i : {0, 1}) Return(i, {{topology}});
  fleet_.Enlist(Worker(2));
  fleet_.Enlist(Worker(3));
  fleet_.StartScale(4);
  const auto call = fleet_.TakeCall(FormingPhase::kAssign, "w3");
  EXPECT_EQ(call.target.epoch, Epoch(8));
  EXPECT_EQ(call.target.term, Term(kFormerTerm + 1));
  EXPECT_EQ(call.topology.term, call.target.term) << "a worker compares them";
  EXPECT_EQ(call.inputs.predecessor, topology);
}

TEST_F(AdoptionTest, ItsSizesAreThoseThatItHad) {
  const Topology topology = Former(7, {.cp = 3});
  for (int i : {0, 1, 2}) Return(i, {{topology}});
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
  EXPECT_EQ(fleet_.coordinator().fleet().GetTopology().config.cp, 3);
  fleet_.Lose("w1");
  fleet_.Release();
  fleet_.Enlist(Worker(5));
  fleet_.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet_.workers(), "w0 w5 w2");
  EXPECT_EQ(fleet_.epoch(), 8u);
}

TEST_F(AdoptionTest, WhatLacksARankForTooLongIsGivenBackAndFormedAnew) {
  const Topology topology = Former(7, {.cp = 2});
  Return(0, {{topology}});
  fleet_.Enlist(Worker(2));
  fleet_.Advance(absl::Milliseconds(4500));
  EXPECT_EQ(fleet_.state(), ReplicaState::kWaiting);
  EXPECT_TRUE(Released().empty());
  fleet_.Advance(absl::Seconds(1));
  EXPECT_EQ(Released(), std::vector<std::string>{"w0/7"});
  EXPECT_EQ(fleet_.state(), ReplicaState::kForming);
  EXPECT_EQ(fleet_.epoch(), 8u);
  EXPECT_EQ(fleet_.workers(), "w0 w2");
  EXPECT_EQ(fleet_.replica().topology->term, Term(kFormerTerm + 1));
}

TEST_F(AdoptionTest, StandbysThatComeFirstDoNotTakeTheReplicaFromItsRanks) {
  const Topology topology = Former(7, {.cp = 2});
  Return(2, {});
  Return(3, {});
  EXPECT_EQ(fleet_.state(), ReplicaState::kWaiting);
  fleet_.Advance(absl::Milliseconds(500));
  Return(0, {{topology}});
  Return(1, {{topology}});
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
  EXPECT_EQ(fleet_.workers(), "w0 w1");
  EXPECT_TRUE(Released().empty());
}

TEST_F(AdoptionTest, StandbysFormTheReplicaWhenNoRankComes) {
  Return(2, {});
  Return(3, {});
  fleet_.Advance(absl::Milliseconds(1500));
  EXPECT_EQ(fleet_.state(), ReplicaState::kForming);
}

TEST_F(AdoptionTest, AnotherProcessUnderTheNameOfARankIsNotThatRank) {
  const Topology topology = Former(7, {.cp = 2});
  Return(0, {{topology}});
  fleet_.Enlist(TestWorker("w1", 50));
  EXPECT_EQ(fleet_.state(), ReplicaState::kWaiting);
  fleet_.Advance(absl::Seconds(6));
  EXPECT_EQ(Released(), std::vector<std::string>{"w0/7"});
}

TEST_F(AdoptionTest, WhatWasBeingPreparedIsRolledBack) {
  const Topology serves = Former(7, {.cp = 2}), prepared = Former(8, {.cp = 3});
  Return(0, {{serves}, {prepared, WorkerState::kAgreed}});
  Return(1, {{serves}, {prepared, WorkerState::kAgreed}});
  EXPECT_EQ(fleet_.epoch(), 7u);
  EXPECT_EQ(Released(), (std::vector<std::string>{"w0/8", "w1/8"}));
  const std::vector<Event> events = fleet_.events(EventKind::kRolledBack);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].epoch, Epoch(8));
  EXPECT_EQ(events[0].message,
            "epoch 8, which an earlier coordinator was preparing, is given back; epoch 7 serves "
            "on");
  Return(2, {{prepared, WorkerState::kAgreed}});
  EXPECT_EQ(Released(), std::vector<std::string>{"w2/8"}) << "a recruit that comes late";
  EXPECT_EQ(fleet_.state(), ReplicaState::kServing);
}

TEST_F(AdoptionTest, TheHighestEpochThatServesOnAllItsRanksIsAdopted) {
  const Topology former = Former(7, {.cp = 2}), newer = Former(8, {.cp = 3});
  for (int i : {0, 1}) Return(i, {{former}, {newer}});
  EXPECT_EQ(fleet_.state(), ReplicaState::kWaiting) << "a rank of the newer one may still come";
  Return(2, {{newer}});
  EXPECT_EQ(fleet_.epoch(), 8u);
  EXPECT_EQ(Released(), (std::vector<std::string>{"w0/7", "w1/7"}));
  EXPECT_TRUE(fleet_.events(EventKind::kRolledBack).empty());
}

TEST_F(AdoptionTest, WhenTheNewerOneStaysIncompleteTheFormerIsAdopted) {
  const Topology former = Former(7, {.cp = 2}), newer = Former(8, {.cp = 3});
  Return(0, {{former}, {newer}});
  Return(1, {{former}});
  // Their heartbeats go on to say so.
  const std::vector<EpochReport> reports = {{.epoch = Epoch(7), .state = WorkerState::kServing},
                                            {.epoch = Epoch(8), .state = WorkerState::kServing}};
  for (int i = 0; i < 12; ++i) {
    fleet_.clock().Advance(absl::Milliseconds(500));
    for (const char* id : {"w0", "w1"}) fleet_.Heartbeat(id, 1, reports);
    fleet_.coordinator().Tick();
  }
  EXPECT_EQ(fleet_.epoch(), 7u);
  EXPECT_EQ(Released(), std::vector<std::string>{"w0/8"});
}

TEST_F(AdoptionTest, AnEpochThatThisCoordinatorEndedIsNotAdopted) {
  fleet_.EnlistAll(2);
  fleet_.Serve();
  const Topology ended = *fleet_.replica().topology;
  fleet_.Lose("w1");
  fleet_.Release();
  WorkerInfo again = Worker(1);
  again.term = Term(1);
  again.epochs = {{.epoch = ended.epoch, .state = WorkerState::kServing}};
  again.serving = {ended};
  fleet_.Enlist(std::move(again));
  EXPECT_EQ(Released(), std::vector<std::string>{"w1/1"});
  EXPECT_EQ(fleet_.coordinator().term(), Term(1)) << "it had the term from here";
  fleet_.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet_.epoch(), 2u);
}

TEST_F(AdoptionTest, AWorkerWithAHigherTermRaisesItForAllLaterCalls) {
  fleet_.EnlistAll(2);
  fleet_.FinishPhase(FormingPhase::kAssign);
  WorkerInfo late = Worker(2);
  late.term = Term(9);
  fleet_.Enlist(std::move(late));
  EXPECT_EQ(fleet_.coordinator().term(), Term(10));
  fleet_.FinishPhase(FormingPhase::kLoad);
  EXPECT_EQ(fleet_.TakeCall(FormingPhase::kWarmup, "w0").target.term, Term(10));
}

TEST_F(AdoptionTest, ATopologyThatTheWorkerHasNoRankInIsNoReasonToWait) {
  WorkerInfo worker = Worker(5);
  worker.epochs = {{.epoch = Epoch(7), .state = WorkerState::kServing}};
  worker.serving = {Former(7, {.cp = 2})};
  fleet_.Enlist(std::move(worker));
  EXPECT_EQ(Released(), std::vector<std::string>{"w5/7"});
}

TEST_F(AdoptionTest, ItKeepsTheBucketsThatItHad) {
  const Topology topology = Former(7, {.cp = 2});
  for (int i : {0, 1}) {
    WorkerInfo worker = Worker(i);
    worker.term = Term(kFormerTerm);
    worker.serving = {topology};
    worker.epochs = {{.epoch = Epoch(7), .state = WorkerState::kServing, .buckets = {16, 2}}};
    fleet_.Enlist(std::move(worker));
  }
  OperationRequest same{.id = "same", .kind = OperationKind::kApplyTopology, .buckets = {16, 2}};
  fleet_.Operate(same);
  fleet_.DescribeCaches();
  EXPECT_TRUE(fleet_.operation("same").no_change);
  fleet_.Lose("w1");
  fleet_.Release();
  fleet_.Enlist("w5");
  fleet_.Advance(absl::Seconds(1));
  EXPECT_EQ(fleet_.TakeCall(FormingPhase::kAssign, "w5").inputs.buckets, (std::vector<int>{16, 2}));
}

TEST_F(AdoptionTest, OneThatHadShrunkDoesNotDecideTheSizeOfAll) {
  TestFleet fleet({.cp = 2, .replicas = 2});
  const Topology small = Former(7, {.cp = 1}, 1);
  const Topology large = Former(7, {.cp = 2});
  const auto enlist = [&](const std::string& id, Topology topology) {
    WorkerInfo worker = TestWorker(id, topology.ranks[0].incarnation.value());
    worker.worker_id = id;
    worker.term = Term(kFormerTerm);
    for (RankPlacement& rank : topology.ranks) {
      if (rank.worker_id == id) worker.incarnation = rank.incarnation;
    }
    worker.serving = {topology};
    worker.epochs = {
        {.replica = topology.replica, .epoch = topology.epoch, .state = WorkerState::kServing}};
    fleet.Enlist(std::move(worker));
  };
  enlist("w0", large);
  enlist("w1", large);
  Topology other = small;
  other.ranks[0].worker_id = "w9";
  enlist("w9", other);
  EXPECT_EQ(fleet.state(0), ReplicaState::kServing);
  EXPECT_EQ(fleet.state(1), ReplicaState::kServing);
  EXPECT_EQ(fleet.coordinator().fleet().GetTopology().config.cp, 2);
}

TEST_F(AdoptionTest, WhatIsTakenOutBeforeItsLastRankComesIsGivenBack) {
  const Topology topology = Former(7, {.cp = 2}, 1);
  TestFleet fleet({.cp = 2, .replicas = 2});
  const auto enlist = [&](int index) {
    WorkerInfo worker = Worker(index);
    worker.term = Term(kFormerTerm);
    worker.serving = {topology};
    worker.epochs = {
        {.replica = topology.replica, .epoch = topology.epoch, .state = WorkerState::kServing}};
    fleet.Enlist(std::move(worker));
  };
  enlist(0);
  fleet.Enlist("a0");
  fleet.Enlist("a1");
  fleet.Advance(absl::Milliseconds(1500));
  fleet.Serve();
  OperationRequest fewer{.id = "op1", .kind = OperationKind::kApplyTopology};
  fewer.sizes.replicas = 1;
  fleet.Operate(fewer);
  fleet.DescribeCaches();
  fleet.coordinator().Tick();
  EXPECT_EQ(fleet.operation().state, OperationState::kDone);
  enlist(1);
  EXPECT_EQ(fleet.Release(), (std::vector<std::string>{"w0", "w1"}));
}

TEST(Adoption, ReplicasAreAdoptedOneByOneAndOneThatIsNotConfiguredIsGivenBack) {
  TestFleet fleet({.cp = 1, .replicas = 1});
  const ParallelConfig two{.cp = 1, .replicas = 2};
  for (int replica : {0, 1}) {
    WorkerInfo worker = Worker(0);
    worker.worker_id = absl::StrCat("v", replica);
    Topology topology = Former(7, {.cp = 1});
    topology.replica = ReplicaIndex(replica);
    topology.config = two;
    topology.ranks[0].worker_id = worker.worker_id;
    worker.epochs = {
        {.replica = ReplicaIndex(replica), .epoch = Epoch(7), .state = WorkerState::kServing}};
    worker.serving = {topology};
    fleet.Enlist(std::move(worker));
  }
  EXPECT_EQ(fleet.state(), ReplicaState::kServing);
  EXPECT_EQ(fleet.workers(), "v0");
  EXPECT_EQ(fleet.Release(), std::vector<std::string>{"v1"});
}

}  // namespace
}  // namespace muster
