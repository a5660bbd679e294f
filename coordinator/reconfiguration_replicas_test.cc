// A replica per domain: which there are, and where.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "coordinator/test_fleet.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kWaiting = ReplicaState::kWaiting;
constexpr auto kForming = ReplicaState::kForming;
constexpr auto kServing = ReplicaState::kServing;

class ReplicaPerDomain : public ::testing::Test {
 protected:
  // "a0" is of domain "a".
  void Enlist(const std::string& id) {
    WorkerInfo worker = TestWorker(id, ++incarnation_);
    worker.domain = id.substr(0, 1);
    fleet_.Enlist(std::move(worker));
  }
  void EnlistDomain(const std::string& domain, int workers = 4) {
    for (int i = 0; i < workers; ++i) Enlist(absl::StrCat(domain, i));
  }
  void LoseDomain(const std::string& domain, int workers = 4) {
    for (int i = 0; i < workers; ++i) fleet_.Lose(absl::StrCat(domain, i));
    fleet_.Release();
  }
  void ServeBoth() {
    EnlistDomain("a");
    EnlistDomain("b");
    fleet_.Serve();
  }
  std::vector<ReplicaStatus> replicas() {
    return fleet_.coordinator().fleet().GetTopology().replicas;
  }
  int asked() { return fleet_.coordinator().fleet().GetTopology().config.replicas; }

  TestFleet fleet_{{.cp = 2}, true};
  uint64_t incarnation_ = 0;
};

TEST_F(ReplicaPerDomain, TheFirstWaitsForWorkersAsEver) {
  fleet_.coordinator().Tick();
  EXPECT_EQ(replicas().size(), 1u);
  EXPECT_EQ(fleet_.state(), kWaiting);
  Enlist("a0");
  Enlist("b0");
  EXPECT_STATUS(fleet_.replica().failure, absl::StatusCode::kFailedPrecondition,
                "waiting for workers: 2 needed, 2 free: 1 in a, 1 in b");
}

TEST_F(ReplicaPerDomain, EachDomainThatCanHoldOneGetsOneAndKeepsItsStandbys) {
  EnlistDomain("a");
  EXPECT_EQ(replicas().size(), 1u) << "the others of its domain stand by";
  EnlistDomain("b");
  ASSERT_EQ(replicas().size(), 2u);
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(0), "a0 a1");
  EXPECT_EQ(fleet_.workers(1), "b0 b1");
  EXPECT_EQ(asked(), 2);
  const std::vector<Event> added = fleet_.events(EventKind::kReplicaAdded);
  ASSERT_EQ(added.size(), 1u);
  EXPECT_EQ(added[0].message, "replica 1 is added for a domain with enough workers: 2 replicas");
}

TEST_F(ReplicaPerDomain, ADomainThatIsGoneTakesItsReplicaAlongAndBringsItBack) {
  ServeBoth();
  LoseDomain("b");
  fleet_.Advance(absl::Seconds(2));
  ASSERT_EQ(replicas().size(), 1u);
  EXPECT_EQ(fleet_.state(0), kServing);
  EXPECT_EQ(fleet_.events(EventKind::kReplicaRemoved)[0].message,
            "replica 1, of whose workers none is left, is taken out: 1 replica");
  EnlistDomain("b");
  ASSERT_EQ(replicas().size(), 2u);
  EXPECT_EQ(fleet_.workers(1), "b0 b1");
  EXPECT_GT(fleet_.epoch(1), 1u) << "never numbered again";
}

TEST_F(ReplicaPerDomain, TheOthersKeepTheirNumbersWhenAnEarlierOneIsGone) {
  ServeBoth();
  LoseDomain("a");
  fleet_.Advance(absl::Seconds(2));
  ASSERT_EQ(replicas().size(), 1u);
  EXPECT_EQ(replicas()[0].replica, ReplicaIndex(1));
  EXPECT_EQ(replicas()[0].state, kServing);
  fleet_.StartScale(4);
  fleet_.Serve();
  fleet_.Release();
  EXPECT_EQ(fleet_.operation().state, OperationState::kDone);
  EXPECT_EQ(replicas()[0].topology->config.cp, 4);
  EnlistDomain("c");
  ASSERT_EQ(replicas().size(), 2u);
  EXPECT_EQ(fleet_.workers(0), "c0 c1 c2 c3");
}

TEST_F(ReplicaPerDomain, TheLastOneStays) {
  EnlistDomain("a");
  fleet_.Serve();
  LoseDomain("a");
  fleet_.Advance(absl::Seconds(5));
  ASSERT_EQ(replicas().size(), 1u);
  EXPECT_EQ(fleet_.state(), kWaiting);
  EnlistDomain("b");
  EXPECT_EQ(fleet_.state(), kForming);
  EXPECT_EQ(fleet_.workers(), "b0 b1");
}

TEST_F(ReplicaPerDomain, ALostRankIsTakenByAStandbyOfItsOwnDomain) {
  ServeBoth();
  fleet_.Lose("b0");
  fleet_.Release();
  fleet_.Advance(absl::Seconds(2));
  EXPECT_EQ(replicas().size(), 2u);
  EXPECT_EQ(fleet_.workers(1), "b2 b1");
  fleet_.Lose("b3");
  fleet_.Lose("b2");
  fleet_.Release();
  fleet_.Advance(absl::Seconds(5));
  EXPECT_EQ(replicas().size(), 2u) << "b1 is left of it";
  EXPECT_EQ(fleet_.state(1), kWaiting) << "a2 and a3 are for replica 0 to grow by";
}

TEST_F(ReplicaPerDomain, OneThatFailsKeepsItsDomainAndTheNextGetsAnother) {
  EnlistDomain("a");
  fleet_.Serve();
  EnlistDomain("b");
  fleet_.FormUntil(FormingPhase::kWarmup);
  fleet_.FinishRank(FormingPhase::kWarmup, "b0", absl::ResourceExhaustedError("no memory"));
  fleet_.FinishPhase(FormingPhase::kWarmup);
  fleet_.Release();
  EXPECT_EQ(fleet_.state(1), ReplicaState::kFailed);
  EnlistDomain("c");
  fleet_.Advance(absl::Seconds(2));
  ASSERT_EQ(replicas().size(), 3u);
  fleet_.Serve();
  EXPECT_EQ(fleet_.workers(2), "c0 c1");
}

TEST_F(ReplicaPerDomain, ARollingUpgradeGoesFromDomainToDomain) {
  ServeBoth();
  const auto upgrade = [this](const std::string& domain) {
    LoseDomain(domain);
    for (int i = 0; i < 4; ++i) {
      WorkerInfo worker = TestWorker(absl::StrCat(domain, i), ++incarnation_);
      worker.domain = domain;
      worker.build = "next";
      fleet_.Enlist(std::move(worker));
    }
    fleet_.Advance(absl::Seconds(2));
    fleet_.Serve();
  };
  upgrade("b");
  ASSERT_EQ(replicas().size(), 2u);
  EXPECT_EQ(fleet_.state(0), kServing);
  EXPECT_EQ(fleet_.state(1), kServing);
  upgrade("a");
  ASSERT_EQ(replicas().size(), 2u);
  EXPECT_EQ(fleet_.state(0), kServing);
  EXPECT_EQ(fleet_.workers(0), "a0 a1");
}

TEST_F(ReplicaPerDomain, TheirNumberCannotBeAskedFor) {
  ServeBoth();
  OperationRequest request{.id = "op1", .kind = OperationKind::kApplyTopology};
  request.sizes.replicas = 3;
  const auto refused = fleet_.Operate(request);
  fleet_.DescribeCaches();
  EXPECT_STATUS(refused->value(), absl::StatusCode::kInvalidArgument,
                "cannot plan replicas=3: each domain that has workers for one gets one "
                "(--replicas auto).");
  EXPECT_EQ(DetailOf(refused->value()).reason, ErrorReason::kPlanRefused);
}

TEST_F(ReplicaPerDomain, WhatAnEarlierCoordinatorHadIsAdoptedUnderItsNumber) {
  ServeBoth();
  const std::vector<ReplicaStatus> before = replicas();
  TestFleet next({.cp = 2}, true);
  for (const std::string id : {"b2", "b3", "a2", "a3", "b0", "b1", "a0", "a1"}) {
    WorkerInfo worker;
    for (const WorkerStatus& it : fleet_.coordinator().fleet().ListWorkers()) {
      if (it.info.worker_id == id) worker = it.info;
    }
    worker.term = before[0].topology->term;
    const Topology& topology = *before[id[0] == 'a' ? 0 : 1].topology;
    if (id[1] < '2') {
      worker.serving = {topology};
      worker.epochs = {
          {.replica = topology.replica, .epoch = topology.epoch, .state = WorkerState::kServing}};
    }
    next.Enlist(std::move(worker));
  }
  EXPECT_EQ(next.state(0), kServing);
  EXPECT_EQ(next.state(1), kServing);
  EXPECT_EQ(next.workers(0), "a0 a1");
  EXPECT_EQ(next.workers(1), "b0 b1");
  next.Advance(absl::Seconds(10));
  EXPECT_EQ(next.coordinator().fleet().GetTopology().replicas.size(), 2u);
  EXPECT_TRUE(next.client().TakeReleases().empty());
}

}  // namespace
}  // namespace muster
