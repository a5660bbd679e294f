#include "coordinator/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "coordinator/test_workers.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

Candidate Named(const std::string& id, const ModelSpec& model = TestModel()) {
  return {.worker_id = id, .incarnation = Incarnation(7), .address = id + ":1", .model = model};
}

std::vector<Candidate> Workers(int count) {
  std::vector<Candidate> workers;
  workers.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) workers.push_back(Named(absl::StrCat("w", i)));
  return workers;
}

PlanRequest Request(const ParallelConfig& config, std::vector<Candidate> inventory) {
  PlanRequest request{.config = config, .term = Term(3), .inventory = std::move(inventory)};
  for (int i = 0; i < config.replicas; ++i) {
    request.slots.push_back({.replica = ReplicaIndex(i), .epoch = Epoch(5)});
  }
  return request;
}

std::string Seats(const Topology& topology) {
  return absl::StrJoin(topology.ranks, " ", [](std::string* out, const RankPlacement& rank) {
    absl::StrAppend(out, rank.worker_id);
  });
}

std::string Groups(const Topology& topology) {
  return absl::StrJoin(topology.groups, " ", [](std::string* out, const GroupSpec& group) {
    absl::StrAppend(out, group.DebugString());
  });
}

TEST(PlanTopology, TheWorkedExampleOfTheDesign) {
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanTopology(Request({.tp = 2, .cp = 2}, Workers(4))));
  ASSERT_EQ(plan.topologies.size(), 1u);
  const Topology& topology = plan.topologies[0];
  EXPECT_EQ(Groups(topology), "STAGE[0,1,2,3] TP[0,1] TP[2,3] CP[0,2] CP[1,3]");
  EXPECT_EQ(Seats(topology), "w0 w1 w2 w3");
  EXPECT_EQ(topology.epoch, Epoch(5));
  EXPECT_EQ(topology.term, Term(3));
  EXPECT_EQ(topology.ranks[2].address, "w2:1");
  EXPECT_EQ(topology.ranks[2].incarnation, Incarnation(7));
}

TEST(PlanTopology, WorkersTakeRanksInTheOrderInWhichPeopleCount) {
  std::vector<Candidate> workers = Workers(12);
  std::reverse(workers.begin(), workers.end());
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanTopology(Request({.tp = 4, .cp = 3}, workers)));
  EXPECT_EQ(Seats(plan.topologies[0]), "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11");
}

TEST(PlanTopology, ReplicasShareNoWorker) {
  ASSERT_OK_AND_ASSIGN(const Plan plan,
                       PlanTopology(Request({.cp = 2, .replicas = 3}, Workers(7))));
  ASSERT_EQ(plan.topologies.size(), 3u);
  EXPECT_EQ(Seats(plan.topologies[0]), "w0 w1");
  EXPECT_EQ(Seats(plan.topologies[1]), "w2 w3");
  EXPECT_EQ(Seats(plan.topologies[2]), "w4 w5");
  EXPECT_EQ(plan.topologies[2].replica, ReplicaIndex(2));
}

TEST(PlanTopology, SurvivorsKeepTheirRanksAndARecruitTakesTheVacantOne) {
  PlanRequest request = Request({.tp = 2, .cp = 2}, Workers(4));
  ASSERT_OK_AND_ASSIGN(const Plan before, PlanTopology(request));
  request.slots[0].previous = before.topologies[0];
  request.inventory = {Named("a0"), Named("w0"), Named("w2"), Named("w3")};
  ASSERT_OK_AND_ASSIGN(const Plan after, PlanTopology(request));
  EXPECT_EQ(Seats(after.topologies[0]), "w0 a0 w2 w3");
}

TEST(PlanTopology, SurvivorsKeepTheirPlacesOnTheAxesWhenCpGrowsAndShrinks) {
  PlanRequest request = Request({.tp = 2, .cp = 2}, Workers(4));
  ASSERT_OK_AND_ASSIGN(const Plan small, PlanTopology(request));
  request = Request({.tp = 2, .cp = 3}, Workers(6));
  request.slots[0].previous = small.topologies[0];
  ASSERT_OK_AND_ASSIGN(const Plan large, PlanTopology(request));
  EXPECT_EQ(Seats(large.topologies[0]), "w0 w1 w2 w3 w4 w5");
  request = Request({.tp = 2, .cp = 1}, Workers(6));
  request.slots[0].previous = large.topologies[0];
  ASSERT_OK_AND_ASSIGN(const Plan shrunk, PlanTopology(request));
  EXPECT_EQ(Seats(shrunk.topologies[0]), "w0 w1");
}

TEST(PlanTopology, ARestartedWorkerReturnsToItsRankAsItsNewProcess) {
  PlanRequest request = Request({.cp = 2}, Workers(2));
  ASSERT_OK_AND_ASSIGN(const Plan before, PlanTopology(request));
  request.slots[0].previous = before.topologies[0];
  request.inventory[1].incarnation = Incarnation(8);
  request.inventory.push_back(Named("a0"));
  ASSERT_OK_AND_ASSIGN(const Plan after, PlanTopology(request));
  EXPECT_EQ(Seats(after.topologies[0]), "w0 w1");
  EXPECT_EQ(after.topologies[0].ranks[1].incarnation, Incarnation(8));
}

TEST(PlanTopology, TooFewWorkersAreRefusedWithBothNumbers) {
  const auto plan = PlanTopology(Request({.tp = 2, .cp = 2, .replicas = 2}, Workers(7)));
  EXPECT_STATUS(plan, kPrecondition,
                "cannot plan tp=2 cp=2 replicas=2: it needs 8 workers, 7 are enlisted.");
  EXPECT_EQ(DetailOf(plan.status()).reason, ErrorReason::kNotEnoughWorkers);
  EXPECT_TRUE(DetailOf(plan.status()).retriable);
  EXPECT_STATUS(PlanTopology(Request({}, {})), kPrecondition, "no worker is enlisted.");
}

TEST(PlanTopology, OneWorkerIsEnlistedAndOneIsNeeded) {
  EXPECT_STATUS(PlanTopology(Request({.cp = 2}, Workers(1))), kPrecondition,
                "it needs 2 workers, 1 is enlisted.");
}

TEST(PlanTopology, DrainedWorkersGetNoRankAndAreNamed) {
  std::vector<Candidate> workers = Workers(3);
  workers[0].drained = true;
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanTopology(Request({.cp = 2}, workers)));
  EXPECT_EQ(Seats(plan.topologies[0]), "w1 w2");
  workers[2].drained = true;
  EXPECT_STATUS(PlanTopology(Request({.cp = 2}, workers)), kPrecondition,
                "it needs 2 workers, 1 can get a rank (w0 is drained, w2 is drained).");
  workers[1].drained = true;
  EXPECT_STATUS(PlanTopology(Request({}, workers)), kPrecondition,
                "it needs 1 worker, 0 can get a rank (w0 is drained, ");
}

TEST(PlanTopology, BesideAPatternOthersGetNoRankAndAreNamed) {
  PlanRequest request = Request({.cp = 2}, Workers(4));
  request.pattern = Pattern{.model = TestModel(), .team = TeamOf(request.inventory[0])};
  request.inventory[1].model.digest = "00000000000000bb";
  request.inventory[2].build = "0.0.1";
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanTopology(request));
  EXPECT_EQ(Seats(plan.topologies[0]), "w0 w3");
  request.config.cp = 4;
  const absl::Status refused = PlanTopology(request).status();
  EXPECT_STATUS(refused, kPrecondition, "2 can get a rank (w2 is of build 0.0.1, not ");
  EXPECT_STATUS(refused, kPrecondition, "different models: w1 holds llama-test in float32 (digest");
  EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kDisagreement);
  EXPECT_EQ(DetailOf(refused).workers, (std::vector<std::string>{"w1", "w2"}));
}

// "a1" is of domain "a".
std::vector<Candidate> InDomains(const std::vector<std::string>& names) {
  std::vector<Candidate> workers;
  for (const std::string& name : names) {
    workers.push_back(Named(name));
    workers.back().domain = name.substr(0, 1);
  }
  return workers;
}

TEST(PlanTopology, AReplicaIsOfOneDomain) {
  PlanRequest request = Request({.cp = 2}, InDomains({"a0", "b0", "b1"}));
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanTopology(request));
  EXPECT_EQ(Seats(plan.topologies[0]), "b0 b1");
}

TEST(PlanTopology, AReplicaIsOfOneBuild) {
  PlanRequest request = Request({.cp = 2}, Workers(3));
  request.inventory[0].build = "0.0.1";
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanTopology(request));
  EXPECT_EQ(Seats(plan.topologies[0]), "w1 w2");
}

TEST(PlanTopology, ReplicasSpreadOverDomainsAndLeaveEachItsStandbys) {
  PlanRequest request = Request({.cp = 2, .replicas = 2},
                                InDomains({"a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"}));
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanTopology(request));
  EXPECT_EQ(Seats(plan.topologies[0]), "a0 a1");
  EXPECT_EQ(Seats(plan.topologies[1]), "b0 b1");
}

TEST(PlanTopology, ReplicasShareADomainWhereNoOtherHasRoom) {
  PlanRequest request =
      Request({.cp = 2, .replicas = 2}, InDomains({"a0", "a1", "a2", "a3", "b0"}));
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanTopology(request));
  EXPECT_EQ(Seats(plan.topologies[1]), "a2 a3");
  request.one_per_domain = true;
  EXPECT_STATUS(PlanTopology(request), kPrecondition,
                "cannot plan tp=1 cp=2 replicas=2: it needs 4 workers, 2 together for each "
                "replica, and there are 4 in a, 1 in b.");
}

TEST(PlanTopology, AReplicaStaysWhereMostOfItWas) {
  PlanRequest request = Request({.cp = 2, .replicas = 2}, InDomains({"a0", "a1", "b0", "b1"}));
  ASSERT_OK_AND_ASSIGN(const Plan before, PlanTopology(request));
  request.slots[0].previous = before.topologies[1];
  request.slots[1].previous = before.topologies[0];
  request.inventory = InDomains({"a0", "a1", "a2", "a3", "b1", "b2"});
  ASSERT_OK_AND_ASSIGN(const Plan after, PlanTopology(request));
  EXPECT_EQ(Seats(after.topologies[0]), "b2 b1");
  EXPECT_EQ(Seats(after.topologies[1]), "a0 a1");
}

TEST(PlanTopology, AReplicaMovesWhenItsDomainHasTooFewLeft) {
  PlanRequest request = Request({.cp = 2}, InDomains({"a0", "a1"}));
  ASSERT_OK_AND_ASSIGN(const Plan before, PlanTopology(request));
  request.slots[0].previous = before.topologies[0];
  request.inventory = InDomains({"a0", "b0", "b1"});
  ASSERT_OK_AND_ASSIGN(const Plan after, PlanTopology(request));
  EXPECT_EQ(Seats(after.topologies[0]), "b0 b1");
}

TEST(PlanTopology, WorkersThatAreNotTogetherAreRefusedByWhereTheyAre) {
  PlanRequest request = Request({.cp = 2}, InDomains({"a0", "b0"}));
  EXPECT_STATUS(PlanTopology(request), kPrecondition,
                "it needs 2 workers, 2 together for each replica, and there are 1 in a, 1 in b.");
  request.inventory[0].build = "0.0.1";
  request.inventory[1].build = "0.1.0";
  EXPECT_STATUS(PlanTopology(request), kPrecondition,
                "1 of build 0.0.1 in a, 1 of build 0.1.0 in b.");
  EXPECT_EQ(DetailOf(PlanTopology(request).status()).reason, ErrorReason::kNotEnoughWorkers);
}

TEST(PlanTopology, AWorkerWithAnotherModelIsNamed) {
  std::vector<Candidate> workers = Workers(3);
  workers[1].model.name = "other";
  workers[1].model.digest = "00000000000000bb";
  const auto plan = PlanTopology(Request({.cp = 2}, workers));
  EXPECT_STATUS(plan, kPrecondition,
                "workers hold different models: w1 holds other in float32 (digest "
                "00000000000000bb); the other 2 hold llama-test in float32 (digest "
                "00000000000000aa).");
  EXPECT_EQ(DetailOf(plan.status()).workers, std::vector<std::string>{"w1"});
  workers[1].model = TestModel();
  workers[2].model.dtype = "bfloat16";
  EXPECT_STATUS(PlanTopology(Request({.cp = 2}, workers)), kPrecondition,
                "w2 holds llama-test in bfloat16");
}

absl::Status Check(const ParallelConfig& config, int heads, int kv_heads, int head_dim = 64) {
  ModelSpec model = TestModel();
  model.heads = heads;
  model.kv_heads = kv_heads;
  model.head_dim = head_dim;
  return CheckConfig(config, model);
}

TEST(CheckConfig, NamesTheHeadsThatDoNotDivideAndTheSizesThatWould) {
  const absl::Status status = Check({.tp = 2}, 9, 3);
  EXPECT_EQ(status.message(),
            "cannot plan tp=2: the model has 9 attention heads, which 2 does not divide. tp can be "
            "1, 3 or 9.");
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kPlanRefused);
}

TEST(CheckConfig, KeyValueHeadsAreDividedOrReplicatedNeverSplit) {
  EXPECT_OK(Check({.tp = 3}, 12, 3));
  EXPECT_OK(Check({.tp = 6}, 12, 3));
  EXPECT_STATUS(Check({.tp = 4}, 12, 3), kInvalid,
                "the model has 3 key/value heads, and 4 neither divides them nor is a multiple of "
                "them. tp can be 1, 3, 6 or 12.");
}

TEST(CheckConfig, CpMustDivideTheNumbersOfARanksHeads) {
  EXPECT_OK(Check({.tp = 3, .cp = 4}, 12, 12, 8));
  EXPECT_STATUS(Check({.tp = 3, .cp = 5}, 12, 12, 8), kInvalid,
                "cannot plan cp=5 with tp=3: 4 heads of 8 make 32 numbers per token, which 5 does "
                "not divide. cp can be 1, 2 or 4.");
}

TEST(CheckConfig, AStageHasAtMost16Ranks) {
  EXPECT_STATUS(Check({.tp = 8, .cp = 4}, 32, 8), kInvalid,
                "a stage would have 32 ranks; it can have 16. With tp=8 cp can be 1 or 2.");
  EXPECT_STATUS(Check({.tp = 32}, 32, 8), kInvalid,
                "cannot plan tp=32: a stage can have 16 ranks. tp can be 1, 2, 4, 8 or 16.");
}

TEST(CheckConfig, EverySizeHasItsRange) {
  EXPECT_STATUS(Check({.tp = 0}, 9, 3), kInvalid, "cannot plan tp=0: it can be 1 to 1,024.");
  EXPECT_STATUS(Check({.replicas = 1025}, 9, 3), kInvalid, "replicas=1025");
  EXPECT_STATUS(Check({.pp = 2}, 9, 3), kInvalid, "cannot plan pp=2");
}

TEST(Footprints, OneRankHoldsTheWholeModelTiedOrNot) {
  ModelSpec model = TestModel();
  EXPECT_EQ(Footprints({}, model)[0].weight_bytes, model.weight_bytes);
  model.weight_bytes -= 4ull * 101 * 96;  // the output is the embedding
  EXPECT_EQ(Footprints({}, model)[0].weight_bytes, model.weight_bytes);
}

TEST(Footprints, UnevenShardsMissNothing) {
  const ModelSpec model = TestModel();
  const std::vector<RankFootprint> ranks = Footprints({.cp = 3}, model);
  ASSERT_EQ(ranks.size(), 3u);
  uint64_t total = 0;
  for (const RankFootprint& rank : ranks) total += rank.weight_bytes;
  // Every rank of a CP group holds q, k, v and the norms: 162 rows of a layer, and the last norm.
  EXPECT_EQ(total, model.weight_bytes + 2ull * (2 * 162 + 1) * 96 * 4);
  EXPECT_GT(ranks[0].weight_bytes, ranks[2].weight_bytes);
}

TEST(Footprints, AKvBlockHoldsTheRanksKeyValueHeads) {
  const uint64_t head = 2ull * 2 * 16 * 8 * 4;  // layers, key and value, tokens, head_dim, bytes
  EXPECT_EQ(Footprints({.cp = 2}, TestModel())[0].kv_block_bytes, 4 * head);
  EXPECT_EQ(Footprints({.tp = 4}, TestModel())[0].kv_block_bytes, head);
  EXPECT_EQ(Footprints({.tp = 12}, TestModel())[0].kv_block_bytes, head);
}

TEST(ResizeReserve, WhicheverSizeFollowsWhicheverOtherHasRoom) {
  const ModelSpec model = TestModel();
  const CpRange range{.min = 1, .max = 4};
  const auto stage = [&](int cp) { return Footprints({.cp = cp}, model)[0].stage_bytes; };
  for (const int formed : {1, 2, 4}) {
    const uint64_t room = stage(formed) + ResizeReserveBytes({.cp = formed}, model, range);
    uint64_t most = 0;
    for (const int before : {1, 2, 4}) {
      for (const int after : {1, 2, 4}) {
        if (before != after) most = std::max(most, stage(before) + stage(after));
      }
    }
    EXPECT_EQ(room, most) << "formed with cp=" << formed;
  }
}

TEST(ResizeReserve, ASizeOutsideOfTheRangeIsLeftOnce) {
  const ModelSpec model = TestModel();
  const CpRange range{.min = 2, .max = 4};
  const auto stage = [&](int cp) { return Footprints({.cp = cp}, model)[0].stage_bytes; };
  EXPECT_EQ(ResizeReserveBytes({.cp = 1}, model, range), stage(2));
}

TEST(ResizeReserve, WhereNoOtherSizeIsAllowedNoneIsKept) {
  EXPECT_EQ(ResizeReserveBytes({}, TestModel(), {.min = 1, .max = 1}), 0);
}

// Its weights take 66 GiB of a GPU's 140.
TEST(ResizeReserve, ALlamaOf70BWithTwoGpusLeavesRoomForItsKv) {
  ModelSpec model = TestModel();
  model.layers = 80;
  model.hidden = 8192;
  model.heads = 64;
  model.kv_heads = 8;
  model.head_dim = 128;
  model.ffn = 28672;
  model.vocabulary = 128256;
  model.dtype = "bfloat16";
  const ParallelConfig config{.tp = 2};
  const uint64_t kept = ResizeReserveBytes(config, model, DefaultCpRange(config.cp));
  EXPECT_LT(Footprints(config, model)[0].weight_bytes + kept, uint64_t{110} << 30);
}

TEST(NaturalLess, CountsLikePeople) {
  const std::vector<std::string> sorted = {"", "a", "w", "w0", "w2", "w02", "w10", "w10a", "x1"};
  for (size_t i = 0; i < sorted.size(); ++i) {
    for (size_t j = 0; j < sorted.size(); ++j) {
      // "w2" and "w02" count the same, and are told apart by their letters.
      const bool twins = sorted[i].ends_with('2') && sorted[j].ends_with('2') && i != j;
      if (twins) continue;
      EXPECT_EQ(NaturalLess(sorted[i], sorted[j]), i < j) << sorted[i] << " " << sorted[j];
    }
  }
  EXPECT_NE(NaturalLess("w2", "w02"), NaturalLess("w02", "w2"));
}

}  // namespace
}  // namespace muster
