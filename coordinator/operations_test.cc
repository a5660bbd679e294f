#include "coordinator/operations.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "coordinator/test_fleet.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class OperationsTest : public ::testing::Test {
 protected:
  void Serve(int workers) {
    fleet_.EnlistAll(workers);
    fleet_.Serve();
  }
  absl::Status Refusal(int cp, const CacheSummary& cache = TestFleet::TestCache()) {
    const TestFleet::Answer answer = fleet_.Scale(cp, "refused");
    fleet_.DescribeCaches(cache);
    return answer->value();
  }

  absl::StatusOr<std::vector<ReplicaChange>> DryRun(
      const OperationRequest& request, const CacheSummary& cache = TestFleet::TestCache()) {
    std::optional<absl::StatusOr<std::vector<ReplicaChange>>> plan;
    fleet_.coordinator().fleet().PlanChanges(request,
                                             [&](auto changes) { plan = std::move(changes); });
    fleet_.DescribeCaches(cache);
    return plan.value();
  }
  // To its end.
  void Run(const OperationRequest& request) {
    fleet_.Operate(request);
    ASSERT_GT(fleet_.DescribeCaches(), 0);
    fleet_.Serve();
    fleet_.Release();
    ASSERT_EQ(fleet_.operation(request.id).state, OperationState::kDone);
  }

  TestFleet fleet_{{.cp = 2}};
};

TEST_F(OperationsTest, NothingIsPlannedUntilTheLeaderHasSaidWhatItHolds) {
  Serve(4);
  const TestFleet::Answer answer = fleet_.Scale(4);
  EXPECT_FALSE(answer->has_value());
  EXPECT_FALSE(fleet_.coordinator().fleet().FindOperation("op1").has_value());
  EXPECT_EQ(fleet_.DescribeCaches(), 1);
  ASSERT_OK(answer->value());
  EXPECT_EQ(fleet_.operation().summary, "cp 2 to 4");
  EXPECT_EQ(fleet_.events(EventKind::kOperationStarted).at(0).operation_id, "op1");
}

TEST_F(OperationsTest, APlanThatCannotBeIsRefusedAndLeavesNoOperation) {
  Serve(4);
  EXPECT_EQ(DetailOf(Refusal(8)).reason, ErrorReason::kPlanRefused);
  EXPECT_EQ(DetailOf(Refusal(5)).reason, ErrorReason::kPlanRefused);
  fleet_.Lose("w3");
  EXPECT_EQ(DetailOf(Refusal(4)).reason, ErrorReason::kNotEnoughWorkers);
  CacheSummary full = TestFleet::TestCache();
  full.blocks_per_rank = 10;
  EXPECT_EQ(DetailOf(Refusal(1, full)).reason, ErrorReason::kKvCapacity);
  EXPECT_TRUE(fleet_.coordinator().fleet().ListOperations().empty());
  EXPECT_TRUE(fleet_.events(EventKind::kOperationStarted).empty());
}

TEST_F(OperationsTest, ALeaderThatDoesNotAnswerIsNamed) {
  Serve(4);
  const TestFleet::Answer answer = fleet_.Scale(4);
  fleet_.DescribeCaches(absl::UnavailableError("its connection broke"));
  EXPECT_STATUS(answer->value(), absl::StatusCode::kUnavailable,
                "the leader of replica 0 (worker w0) does not say what its cache holds: its "
                "connection broke");
  EXPECT_TRUE(fleet_.coordinator().fleet().ListOperations().empty());
}

TEST_F(OperationsTest, NothingServesNothingIsChanged) {
  fleet_.EnlistAll(1);
  EXPECT_STATUS(fleet_.Scale(4)->value(), kPrecondition, "no replica serves");
}

TEST_F(OperationsTest, TheSameSizeIsDoneAtOnce) {
  Serve(2);
  fleet_.StartScale(2);
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
  EXPECT_TRUE(fleet_.operation().no_change);
  EXPECT_TRUE(fleet_.operation().ended.has_value());
}

TEST_F(OperationsTest, ASecondOperationIsRefusedWithTheFirstOnesName) {
  Serve(4);
  fleet_.Scale(4);
  EXPECT_STATUS(fleet_.Scale(1, "op2")->value(), kPrecondition,
                "operation 'op1' (cp 4) is running");
  fleet_.DescribeCaches();
  const absl::Status refused = fleet_.Scale(1, "op2")->value();
  EXPECT_STATUS(refused, kPrecondition, "operation 'op1' (cp 2 to 4) is running");
  EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kOperationRunning);
}

TEST_F(OperationsTest, TheSameIdJoinsAndAfterwardsRepeatsWhatCameOfIt) {
  Serve(4);
  const TestFleet::Answer first = fleet_.Scale(4);
  const TestFleet::Answer joined = fleet_.Scale(4);
  EXPECT_EQ(DetailOf(fleet_.Scale(3)->value()).reason, ErrorReason::kRequestIdReused);
  EXPECT_EQ(fleet_.DescribeCaches(), 1);
  ASSERT_OK(first->value());
  ASSERT_OK(joined->value());
  fleet_.Serve();
  fleet_.Release();
  ASSERT_OK(fleet_.Scale(4)->value());
  EXPECT_STATUS(fleet_.Scale(3)->value(), absl::StatusCode::kInvalidArgument,
                "request id 'op1' has named an operation with other arguments.");
  EXPECT_EQ(fleet_.coordinator().fleet().ListOperations().size(), 1u);
}

TEST_F(OperationsTest, TheLastSixteenAreKeptNewestFirst) {
  Serve(2);
  for (int i = 0; i < 20; ++i) fleet_.StartScale(2, "op" + std::to_string(i));
  const std::vector<Operation> kept = fleet_.coordinator().fleet().ListOperations();
  ASSERT_EQ(kept.size(), 16u);
  EXPECT_EQ(kept.front().id, "op19");
  EXPECT_EQ(kept.back().id, "op4");
}

TEST_F(OperationsTest, AnUnknownOperationCannotBeCancelledAndAnEndedOneStays) {
  Serve(2);
  EXPECT_STATUS(fleet_.coordinator().fleet().CancelOperation("op1"), absl::StatusCode::kNotFound,
                "there is no operation 'op1'.");
  fleet_.StartScale(2);
  ASSERT_OK_AND_ASSIGN(const Operation operation,
                       fleet_.coordinator().fleet().CancelOperation("op1"));
  EXPECT_EQ(operation.state, OperationState::kDone);
}

TEST_F(OperationsTest, ADryRunShowsTheChangeAndMakesNone) {
  Serve(4);
  OperationRequest request;
  request.sizes.cp = 4;
  ASSERT_OK_AND_ASSIGN(const std::vector<ReplicaChange> plan, DryRun(request));
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan.front().kv_blocks_moved, 14u);
  EXPECT_EQ(plan.front().to.epoch, Epoch(2));
  EXPECT_TRUE(fleet_.coordinator().fleet().ListOperations().empty());
  EXPECT_EQ(fleet_.epoch(), 1u);
}

TEST(Operations, ReplicasChangeOneAfterAnother) {
  TestFleet fleet({.cp = 1, .replicas = 2});
  fleet.EnlistAll(4);
  fleet.Serve();
  fleet.StartScale(2);
  EXPECT_EQ(fleet.resize(0).stage, ResizeStage::kPreparing);
  EXPECT_EQ(fleet.resize(1).stage, ResizeStage::kWaiting);
  fleet.Serve();
  EXPECT_EQ(fleet.resize(1).stage, ResizeStage::kWaiting) << "the first still gives back";
  fleet.Release();
  EXPECT_EQ(fleet.resize(0).stage, ResizeStage::kDone);
  EXPECT_EQ(fleet.resize(1).stage, ResizeStage::kPreparing);
  fleet.Serve();
  fleet.Release();
  EXPECT_EQ(fleet.operation().state, OperationState::kDone);
  EXPECT_EQ(fleet.workers(0), "w0 w2");
  EXPECT_EQ(fleet.workers(1), "w1 w3");
}

TEST(Operations, AReplicaThatRollsBackEndsTheOperationAndTheFirstStaysChanged) {
  TestFleet fleet({.cp = 1, .replicas = 2});
  fleet.EnlistAll(4);
  fleet.Serve();
  fleet.StartScale(2);
  fleet.Serve();
  fleet.Release();
  fleet.Lose("w3");
  fleet.Release();
  const Operation operation = fleet.operation();
  EXPECT_EQ(operation.state, OperationState::kRolledBack);
  EXPECT_EQ(operation.replicas[0].stage, ResizeStage::kDone);
  EXPECT_EQ(operation.replicas[1].stage, ResizeStage::kRolledBack);
  EXPECT_EQ(fleet.workers(0), "w0 w2");
  EXPECT_EQ(fleet.state(1), ReplicaState::kServing);
  EXPECT_EQ(fleet.epoch(1), 1u);
}

OperationRequest Drain(const std::string& worker_id) {
  return {.id = "op1", .kind = OperationKind::kDrainWorker, .worker_id = worker_id};
}

TEST_F(OperationsTest, ADrainedRankGoesToAStandbyAndTheWorkerGetsNoneUntilItIsStartedAgain) {
  Serve(3);
  fleet_.Operate(Drain("w1"));
  fleet_.DescribeCaches();
  fleet_.Serve();
  EXPECT_EQ(fleet_.resize().note, "worker w1 drained, its rank moved to w2");
  EXPECT_EQ(fleet_.events(EventKind::kResized).at(0).message.substr(0, 40),
            "worker w1 drained, its rank moved to w2:");
  EXPECT_EQ(fleet_.workers(), "w0 w2");
  fleet_.Release();
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
  EXPECT_EQ(fleet_.operation().summary, "drain w1");
  EXPECT_TRUE(fleet_.coordinator().fleet().ListWorkers()[1].drained);
  fleet_.Lose("w2");
  fleet_.Release();
  fleet_.Advance(absl::Seconds(2));
  EXPECT_EQ(fleet_.state(), ReplicaState::kWaiting);
  fleet_.Lose("w1");
  fleet_.Enlist("w1");
  fleet_.Advance(absl::Seconds(2));
  EXPECT_EQ(fleet_.workers(), "w0 w1");
}

TEST_F(OperationsTest, WithoutAStandbyADrainShrinks) {
  Serve(2);
  fleet_.Operate(Drain("w1"));
  fleet_.DescribeCaches();
  EXPECT_EQ(fleet_.operation().summary, "drain w1, cp 2 to 1");
  EXPECT_EQ(fleet_.resize().note, "worker w1 drained");
  fleet_.Serve();
  fleet_.Release();
  EXPECT_EQ(fleet_.workers(), "w0");
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
}

TEST_F(OperationsTest, AStandbyIsDrainedAtOnce) {
  Serve(3);
  EXPECT_OK(fleet_.Operate(Drain("w2"))->value());
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
  EXPECT_TRUE(fleet_.coordinator().fleet().ListWorkers()[2].drained);
}

TEST_F(OperationsTest, TheLeaderAndWhoIsNotThereCannotBeDrained) {
  Serve(2);
  EXPECT_STATUS(fleet_.Operate(Drain("w0"))->value(), kPrecondition, "worker w0 leads replica 0");
  EXPECT_STATUS(fleet_.Operate(Drain("w9"))->value(), absl::StatusCode::kNotFound,
                "no worker named 'w9' is enlisted.");
}

TEST(Operations, TheOnlyWorkerCannotBeDrained) {
  TestFleet fleet({});
  fleet.EnlistAll(1);
  fleet.Serve();
  EXPECT_STATUS(fleet.Operate(Drain("w0"))->value(), kPrecondition,
                "worker w0 is the only worker of replica 0");
}

OperationRequest Apply(const ParallelConfig& sizes) {
  return {.id = "op1", .kind = OperationKind::kApplyTopology, .sizes = sizes};
}

TEST_F(OperationsTest, SequencesThatCannotGoOverAreNamedUnlessTheyMayBeDropped) {
  Serve(4);
  CacheSummary cache = TestFleet::TestCache();
  cache.not_rebuildable = {{"bench", "s1"}};
  cache.not_rebuildable_count = 1;
  OperationRequest request = Apply({.tp = 2, .cp = 0, .pp = 0, .replicas = 0});
  const TestFleet::Answer refused = fleet_.Operate(request);
  fleet_.DescribeCaches(cache);
  EXPECT_STATUS(refused->value(), kPrecondition, "1 sequence can be neither moved nor computed");
  request.drop = {"bench/s1"};
  const TestFleet::Answer answer = fleet_.Operate(request);
  fleet_.DescribeCaches(cache);
  ASSERT_OK(answer->value());
  EXPECT_EQ(fleet_.operation().summary, "tp 1 to 2");
  fleet_.FormUntil(FormingPhase::kActivate);
  const auto activate = fleet_.TakeCall(FormingPhase::kActivate, "w0");
  EXPECT_EQ(activate.inputs.drop, (std::vector<SequenceName>{{"bench", "s1"}}));
}

TEST_F(OperationsTest, ADryRunThatWouldLoseSequencesIsRefusedAsTheOperationIs) {
  Serve(4);
  CacheSummary cache = TestFleet::TestCache();
  cache.not_rebuildable = {{"bench", "s1"}};
  cache.not_rebuildable_count = 1;
  OperationRequest request = Apply({.tp = 2, .cp = 0, .pp = 0, .replicas = 0});
  EXPECT_STATUS(DryRun(request, cache), kPrecondition,
                "1 sequence can be neither moved nor computed again: 'bench/s1'");
  request.drop = {"bench/s1"};
  ASSERT_OK_AND_ASSIGN(const std::vector<ReplicaChange> changes, DryRun(request, cache));
  EXPECT_EQ(changes.at(0).lost_count, 1);
}

TEST_F(OperationsTest, ADryRunOfMoreReplicasThanThereAreWorkersForIsRefused) {
  Serve(3);
  EXPECT_STATUS(DryRun(Apply({.tp = 0, .cp = 0, .pp = 0, .replicas = 2})), kPrecondition,
                "cannot plan replicas=2: it needs 2 more workers, 1 is free.");
}

TEST_F(OperationsTest, OtherBucketsAreAppliedToTheSameSizes) {
  Serve(2);
  OperationRequest request = Apply(kSameSizes);
  request.buckets = {8, 1};
  ASSERT_OK_AND_ASSIGN(const std::vector<ReplicaChange> changes, DryRun(request));
  ASSERT_EQ(changes.size(), 1u) << "it is a change in a dry run as well";
  EXPECT_EQ(changes[0].note, "buckets 8 1") << "those before are the workers' own";
  fleet_.Operate(request);
  fleet_.DescribeCaches();
  EXPECT_EQ(fleet_.operation().summary, "buckets 8 1");
  EXPECT_EQ(fleet_.TakeCall(FormingPhase::kAssign, "w0").inputs.buckets, (std::vector<int>{8, 1}));
}

TEST_F(OperationsTest, BucketsAreToldWithThoseBefore) {
  Serve(2);
  OperationRequest request = Apply(kSameSizes);
  request.buckets = {8, 1};
  Run(request);
  EXPECT_EQ(fleet_.events(EventKind::kResizeProgress).at(0).message, "preparing epoch 2 on w0 w1");
  request.id = "op2";
  request.buckets = {16, 4};
  request.sizes.cp = 1;
  Run(request);
  EXPECT_EQ(fleet_.operation("op2").summary, "buckets 8 1 to 16 4, cp 2 to 1");
  EXPECT_EQ(fleet_.operation("op2").replicas.at(0).note, "buckets 8 1 to 16 4");
  EXPECT_EQ(fleet_.events(EventKind::kResized).at(1).message.substr(0, 31),
            "buckets 8 1 to 16 4, cp 2 to 1:");
  request.id = "op3";
  EXPECT_OK(fleet_.Operate(request)->value_or(absl::OkStatus()));
  fleet_.DescribeCaches();
  EXPECT_TRUE(fleet_.operation("op3").no_change);
  EXPECT_EQ(fleet_.operation("op3").summary, "cp 1, buckets 16 4");
}

OperationRequest Replicas(int count, const std::string& id = "op1") {
  OperationRequest request{.id = id, .kind = OperationKind::kApplyTopology};
  request.sizes.replicas = count;
  return request;
}

TEST_F(OperationsTest, MoreReplicasFormFromStandbysAndTheOperationEndsWhenTheyServe) {
  Serve(4);
  const auto answer = fleet_.Operate(Replicas(2));
  fleet_.DescribeCaches();
  ASSERT_OK(answer->value());
  EXPECT_EQ(fleet_.operation().summary, "replicas 1 to 2");
  EXPECT_EQ(fleet_.workers(1), "w2 w3");
  EXPECT_EQ(fleet_.operation().state, OperationState::kRunning);
  fleet_.Serve();
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
  EXPECT_EQ(fleet_.coordinator().fleet().GetTopology().config.replicas, 2);
  EXPECT_EQ(fleet_.epoch(0), 1u) << "the first goes on as it was";
}

TEST_F(OperationsTest, ReplicasThatLackWorkersAreRefusedWithNumbers) {
  Serve(3);
  const auto answer = fleet_.Operate(Replicas(2));
  fleet_.DescribeCaches();
  EXPECT_STATUS(answer->value(), kPrecondition,
                "cannot plan replicas=2: it needs 2 more workers, 1 is free.");
  EXPECT_EQ(DetailOf(answer->value()).reason, ErrorReason::kNotEnoughWorkers);
}

// What is not like those that serve.
WorkerInfo Stranger(const std::string& id, uint64_t incarnation) {
  WorkerInfo worker = TestWorker(id, incarnation);
  worker.model.name = "other";
  worker.model.digest = "00000000000000bb";
  return worker;
}

TEST_F(OperationsTest, AStandbyOfAnotherModelHindersNoChangeThatDoesNotNeedIt) {
  Serve(2);
  fleet_.Enlist(Stranger("w2", 3));
  const absl::Status refused = Refusal(3);
  EXPECT_STATUS(refused, kPrecondition, "w2 holds other in float32");
  EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kDisagreement);
  fleet_.Enlist("w3");
  OperationRequest request{.id = "op1"};
  request.sizes.cp = 3;
  Run(request);
  EXPECT_EQ(fleet_.workers(), "w0 w1 w3");
  request.id = "op2";
  request.sizes.cp = 1;
  Run(request);
  EXPECT_EQ(fleet_.workers(), "w0");
}

TEST_F(OperationsTest, AReplicaIsAddedBesideAStandbyOfAnotherModelOrBuild) {
  Serve(2);
  fleet_.Enlist(Stranger("w2", 3));
  WorkerInfo former = TestWorker("w3", 4);
  former.build = "0.0.1";
  fleet_.Enlist(former);
  const auto refused = fleet_.Operate(Replicas(2, "refused"));
  fleet_.DescribeCaches();
  EXPECT_STATUS(refused->value(), kPrecondition,
                "it needs 2 more workers, 1 is free. Workers hold different models: w2 holds "
                "other");
  fleet_.Enlist("w4");
  const auto apart = fleet_.Operate(Replicas(2, "apart"));
  fleet_.DescribeCaches();
  EXPECT_STATUS(apart->value(), kPrecondition,
                "it needs 2 more workers, 2 together for each replica, 2 are free: 1 of build "
                "0.0.1, 1 of build test");
  fleet_.Enlist("w5");
  fleet_.Operate(Replicas(2));
  fleet_.DescribeCaches();
  fleet_.Serve();
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
  EXPECT_EQ(fleet_.workers(1), "w4 w5");
}

TEST_F(OperationsTest, AfterALossAStandbyOfAnotherModelStillHindersNobody) {
  Serve(2);
  fleet_.Enlist(Stranger("w2", 3));
  fleet_.Enlist("w3");
  fleet_.Lose("w1");
  fleet_.Release();
  fleet_.Advance(absl::Seconds(1));
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(), "w0 w3");
  fleet_.Lose("w0");
  fleet_.Lose("w3");
  fleet_.Release();
  fleet_.Enlist(Stranger("w4", 9));
  fleet_.Advance(absl::Seconds(5));
  EXPECT_EQ(fleet_.workers(), "w2 w4") << "nobody is left who holds the former model";
}

TEST_F(OperationsTest, WhatWasAskedForCountsAlsoWhereNothingHadToChange) {
  Serve(2);
  OperationRequest drain = Drain("w1");
  fleet_.Operate(drain);
  fleet_.DescribeCaches();
  fleet_.Serve();
  fleet_.Release();
  EXPECT_EQ(fleet_.workers(), "w0") << "it had to shrink";
  EXPECT_EQ(fleet_.coordinator().fleet().GetTopology().config.cp, 2);
  fleet_.StartScale(1, "same");
  EXPECT_TRUE(fleet_.operation("same").no_change);
  EXPECT_EQ(fleet_.coordinator().fleet().GetTopology().config.cp, 1);
  fleet_.Enlist("w5");
  fleet_.Operate(Replicas(2, "more"));
  fleet_.DescribeCaches();
  fleet_.Serve();
  EXPECT_EQ(fleet_.operation("more").state, OperationState::kDone);
  EXPECT_EQ(fleet_.workers(1), "w5");
}

TEST_F(OperationsTest, AReplicaGrowsOnlyByWorkersOfItsDomain) {
  Serve(2);
  WorkerInfo elsewhere = TestWorker("w2", 3);
  elsewhere.domain = "node-b";
  fleet_.Enlist(elsewhere);
  EXPECT_STATUS(Refusal(3), kPrecondition,
                "it needs 3 workers; it has 2, and no other is free (w2 is in node-b, not in ");
  EXPECT_EQ(DetailOf(Refusal(3)).reason, ErrorReason::kNotEnoughWorkers) << "w2 is as it should be";
}

TEST_F(OperationsTest, ADrainedWorkerIsNamedWhereItIsMissed) {
  Serve(3);
  fleet_.Operate(Drain("w2"));
  EXPECT_STATUS(Refusal(3), kPrecondition,
                "it needs 3 workers; it has 2, and no other is free (w2 is drained).");
}

TEST_F(OperationsTest, AReplicaThatDoesNotComeToServeIsTakenOutAgain) {
  Serve(4);
  fleet_.Operate(Replicas(2));
  fleet_.DescribeCaches();
  fleet_.FinishRank(FormingPhase::kAssign, "w3", absl::InternalError("no"));
  EXPECT_EQ(fleet_.operation().state, OperationState::kRolledBack);
  EXPECT_STATUS(fleet_.operation().failure, absl::StatusCode::kInternal,
                "rank 1 (worker w3) failed in assign: no");
  fleet_.Release();
  EXPECT_EQ(fleet_.coordinator().fleet().GetTopology().replicas.size(), 1u);
  fleet_.Operate(Replicas(2, "op2"));
  fleet_.DescribeCaches();
  EXPECT_EQ(fleet_.epoch(1), 2u) << "a number is never given twice";
  ASSERT_OK(fleet_.coordinator().fleet().CancelOperation("op2"));
  EXPECT_EQ(fleet_.operation("op2").state, OperationState::kRolledBack);
}

TEST(Operations, FewerReplicasGiveTheirWorkersBackUnlessTheyHoldSequences) {
  TestFleet fleet({.cp = 1, .replicas = 2});
  fleet.EnlistAll(2);
  fleet.Serve();
  const auto refused = fleet.Operate(Replicas(1, "refused"));
  fleet.DescribeCaches();
  EXPECT_STATUS(refused->value(), kPrecondition,
                "cannot plan replicas=1: replica 1 holds 8 sequences, which would be lost.");
  OperationRequest request = Replicas(1);
  request.drop = {"*"};
  fleet.Operate(request);
  fleet.DescribeCaches();
  EXPECT_EQ(fleet.operation().state, OperationState::kRunning) << "it has yet to give back";
  EXPECT_EQ(fleet.Release(), std::vector<std::string>{"w1"});
  EXPECT_EQ(fleet.operation().state, OperationState::kDone);
  EXPECT_EQ(fleet.coordinator().fleet().GetTopology().replicas.size(), 1u);
  EXPECT_EQ(fleet.state(0), ReplicaState::kServing);
  EXPECT_FALSE(fleet.coordinator().fleet().ListWorkers()[1].rank.has_value());
}

TEST(Operations, ACancelledOperationLetsTheReplicaThatTakesOverGoOnAndStopsBeforeTheNext) {
  TestFleet fleet({.cp = 1, .replicas = 2});
  fleet.EnlistAll(4);
  fleet.Serve();
  fleet.StartScale(2);
  fleet.FormUntil(FormingPhase::kActivate);
  ASSERT_OK(fleet.coordinator().fleet().CancelOperation("op1"));
  EXPECT_EQ(fleet.operation().state, OperationState::kRunning);
  fleet.FinishPhase(FormingPhase::kActivate);
  fleet.Release();
  EXPECT_EQ(fleet.operation().state, OperationState::kRolledBack);
  EXPECT_EQ(DetailOf(fleet.operation().failure).reason, ErrorReason::kOperationCancelled);
  EXPECT_EQ(fleet.epoch(0), 2u);
  EXPECT_EQ(fleet.epoch(1), 1u);
}

}  // namespace
}  // namespace muster
