#include "coordinator/change_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "coordinator/test_workers.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr uint64_t kBlockBytes = 2048;

std::vector<Candidate> Workers(int count) {
  std::vector<Candidate> workers;
  for (int i = 0; i < count; ++i) {
    workers.push_back({.worker_id = absl::StrCat("w", i),
                       .incarnation = Incarnation(static_cast<uint64_t>(i) + 1),
                       .model = TestModel()});
  }
  return workers;
}

// From `config` on the first of `workers` workers, each rank with room for 100 blocks.
ChangeRequest RequestFrom(const ParallelConfig& config, int workers) {
  const auto plan = PlanTopology({.config = config,
                                  .term = Term(1),
                                  .slots = {{.epoch = Epoch(1)}},
                                  .inventory = Workers(workers)});
  return {.current = plan->topologies[0],
          .config = config,
          .epoch = Epoch(2),
          .term = Term(1),
          .inventory = Workers(workers),
          .cache = {.blocks_by_index = {8, 8, 8, 6, 4},
                    .blocks_per_rank = 100,
                    .block_tokens = 16,
                    .block_bytes = kBlockBytes,
                    .sequences = 8,
                    .tokens = 500,
                    .active_sequences = 4,
                    .copy_bytes_per_second = 1e9,
                    .prefill_tokens_per_second = 1000,
                    .round_trip = absl::Microseconds(500)},
          .range = {.min = 1, .max = 16}};
}

ChangeRequest Scaled(int from, int to, int workers, int tp = 1) {
  ChangeRequest request = RequestFrom({.tp = tp, .cp = from}, workers);
  request.config.cp = to;
  return request;
}

std::vector<std::string> WorkersOf(const ReplicaChange& change, RankRole role) {
  std::vector<std::string> ids;
  for (const RankChange& rank : change.ranks) {
    if (rank.role == role) ids.push_back(rank.worker_id);
  }
  return ids;
}

TEST(ChangePlan, GrowingToTwiceMovesHalfOfEachRanksBlocksToOneNewPeer) {
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(Scaled(2, 4, 4)));
  EXPECT_EQ(WorkersOf(change, RankRole::kSurvivor), (std::vector<std::string>{"w0", "w1"}));
  EXPECT_EQ(WorkersOf(change, RankRole::kRecruit), (std::vector<std::string>{"w2", "w3"}));
  EXPECT_EQ(change.flows,
            (std::vector<BlockFlow>{{GlobalRank(0), GlobalRank(2), 8, 8 * kBlockBytes},
                                    {GlobalRank(1), GlobalRank(3), 6, 6 * kBlockBytes}}));
  EXPECT_EQ(change.kv_blocks_moved, 14u);
  EXPECT_EQ(change.kv_blocks_kept, 20u);
  EXPECT_EQ(change.kv_bytes_moved, 14 * kBlockBytes);
  EXPECT_EQ(change.capacity_tokens_before, 2u * 100 * 16);
  EXPECT_EQ(change.capacity_tokens_after, 4u * 100 * 16);
  EXPECT_EQ(change.tokens_to_rebuild, 0u);
  EXPECT_EQ(change.to.epoch, Epoch(2));
  EXPECT_EQ(change.ranks[0].kv_blocks_peak, 20u) << "the sources stay";
  EXPECT_EQ(change.ranks[2].kv_blocks_peak, 8u);
}

TEST(ChangePlan, ShrinkingLetsTheLastRanksGoAndTakesTheirBlocks) {
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(Scaled(3, 1, 3)));
  EXPECT_EQ(WorkersOf(change, RankRole::kLeaver), (std::vector<std::string>{"w1", "w2"}));
  EXPECT_EQ(change.ranks[1].rank, GlobalRank(1));
  EXPECT_EQ(change.kv_blocks_moved, 20u);
  EXPECT_EQ(change.ranks[0].kv_blocks_peak, 34u);
}

TEST(ChangePlan, QueryKeyAndValueWeightsOfASurvivorAreSharedAndTheRestIsLoaded) {
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(Scaled(2, 4, 4)));
  const std::vector<RankFootprint> footprints = Footprints({.cp = 4}, TestModel());
  // 2 layers of 12 + 4 + 4 heads of 8 and two norms, and the last norm.
  EXPECT_EQ(change.ranks[0].weight_bytes_shared, 4u * (2 * (20 * 8 + 2) + 1) * 96);
  EXPECT_EQ(change.ranks[0].weight_bytes_loaded, footprints[0].stage_bytes);
  EXPECT_EQ(change.ranks[2].weight_bytes_shared, 0u);
  EXPECT_EQ(change.ranks[2].weight_bytes_loaded, footprints[2].weight_bytes);
}

TEST(ChangePlan, ADrainedRankGoesToAStandbyWithAllItsBlocksAndNothingElseMoves) {
  ChangeRequest request = RequestFrom({.tp = 2, .cp = 2}, 5);
  request.excluded = {"w3"};
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(request));
  EXPECT_EQ(change.to.ranks[3].worker_id, "w4");
  EXPECT_EQ(change.flows,
            (std::vector<BlockFlow>{{GlobalRank(3), GlobalRank(3), 14, 14 * kBlockBytes}}));
  EXPECT_EQ(change.kv_blocks_moved, 14u);
  EXPECT_EQ(change.kv_blocks_kept, 20u);
  EXPECT_EQ(change.ranks[0].weight_bytes_loaded, 0u) << "all its shards stay";
}

TEST(ChangePlan, WithTensorParallelEveryRankMovesItsPartAndABlockCountsOnce) {
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(Scaled(1, 2, 4, /*tp=*/2)));
  EXPECT_EQ(change.flows,
            (std::vector<BlockFlow>{{GlobalRank(0), GlobalRank(2), 14, 14 * kBlockBytes},
                                    {GlobalRank(1), GlobalRank(3), 14, 14 * kBlockBytes}}));
  EXPECT_EQ(change.kv_blocks_moved, 14u);
  EXPECT_EQ(change.kv_bytes_moved, 28 * kBlockBytes);
}

TEST(ChangePlan, AnotherTensorParallelSizeMovesNothingAndComputesAllTokensAgain) {
  ChangeRequest request = RequestFrom({.tp = 1, .cp = 2}, 4);
  request.config.tp = 2;
  request.cache.not_rebuildable = {{"bench", "s1"}};
  request.cache.not_rebuildable_count = 1;
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(request));
  EXPECT_TRUE(change.flows.empty());
  EXPECT_EQ(change.kv_blocks_moved + change.kv_blocks_kept, 0u);
  EXPECT_EQ(change.tokens_to_rebuild, 500u);
  EXPECT_EQ(change.lost_count, 1);
  EXPECT_EQ(change.to.ranks[0].worker_id, "w0");
  EXPECT_GE(change.predicted_pause, absl::Milliseconds(500));
}

// A rank has 4 key/value heads at tp 1, and so 1 at tp 4.
TEST(ChangePlan, AnotherTensorParallelSizeHasAsManyBlocksAsTheSameMemoryHolds) {
  ChangeRequest request = RequestFrom({.tp = 1, .cp = 2}, 5);
  request.config = {.tp = 4, .cp = 1};
  request.cache.blocks_by_index = {90, 90, 90, 90};
  ASSERT_OK_AND_ASSIGN(const ReplicaChange more, PlanChange(request));
  EXPECT_EQ(more.capacity_tokens_before, 2u * 100 * 16);
  EXPECT_EQ(more.capacity_tokens_after, 400u * 16);
  EXPECT_EQ(more.ranks[0].kv_blocks_peak, 360u);
  for (const RankChange& rank : more.ranks) EXPECT_EQ(rank.kv_blocks_total, 400u);

  request = RequestFrom({.tp = 4, .cp = 1}, 4);
  request.config = {.tp = 1, .cp = 2};
  request.cache.blocks_by_index = {30, 20};
  EXPECT_STATUS(PlanChange(request), absl::StatusCode::kResourceExhausted,
                "rank 0 would hold 30 KV blocks on the way and has room for 25.");
  request.cache.blocks_by_index = {25, 20};
  ASSERT_OK_AND_ASSIGN(const ReplicaChange fewer, PlanChange(request));
  EXPECT_EQ(fewer.capacity_tokens_after, 2u * 25 * 16);
  EXPECT_EQ(fewer.ranks[0].kv_blocks_total, 25u);
  EXPECT_EQ(fewer.ranks[2].role, RankRole::kLeaver);
  EXPECT_EQ(fewer.ranks[2].kv_blocks_total, 100u) << "of the epoch that it leaves";
}

TEST(ChangePlan, TheArenaOfAnotherTensorParallelSizeTakesNoMoreMemoryThanBefore) {
  ChangeRequest request = RequestFrom({.tp = 1, .cp = 1}, 4);
  const uint64_t arena = 100 * Footprints({}, TestModel())[0].kv_block_bytes;
  request.ledgers = {{.entries = {{"kv", arena}}}};
  request.config.tp = 4;
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(request));
  EXPECT_EQ(change.ranks[0].peak_bytes, change.ranks[0].weight_bytes_loaded + 2 * arena);
}

TEST(ChangePlan, BlocksThatFindNoRoomOnTheWayAreRefusedWithNumbersAndSizesThatDo) {
  ChangeRequest request = Scaled(2, 1, 3);
  request.cache.blocks_by_index = {760, 760};
  request.cache.blocks_per_rank = 1456;
  const absl::Status refused = PlanChange(request).status();
  EXPECT_STATUS(refused, absl::StatusCode::kResourceExhausted,
                "cannot plan cp=1: rank 0 would hold 1,520 KV blocks on the way and has room for "
                "1,456. Free sequences, or choose cp 3.");
  EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kKvCapacity);
}

TEST(ChangePlan, ARankWithoutMemoryForBothEpochsIsNamedWithNumbers) {
  ChangeRequest request = Scaled(1, 2, 2);
  request.ledgers = {{.entries = {{"weights", 1000}, {"graphs", 10}, {"kv", 5000}}}};
  request.inventory[0].device.total_bytes = 6020;
  const absl::Status refused = PlanChange(request).status();
  EXPECT_STATUS(refused, absl::StatusCode::kResourceExhausted, "rank 0 (worker w0) would hold ");
  EXPECT_STATUS(refused, absl::StatusCode::kResourceExhausted, "and has 6,020.");
  EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kOutOfMemory);
  request.inventory[0].device.total_bytes = 1 << 30;
  EXPECT_OK(PlanChange(request));
}

TEST(ChangePlan, RoomThatWasKeptForAResizeIsNotHeld) {
  ChangeRequest request = Scaled(1, 2, 2);
  request.ledgers = {{.entries = {{"weights", 1000}, {"graphs", 10}, {"kv", 5000}}}};
  ASSERT_OK_AND_ASSIGN(const ReplicaChange plain, PlanChange(request));
  request.ledgers[0].entries.push_back({"resize reserve", 700});
  ASSERT_OK_AND_ASSIGN(const ReplicaChange reserved, PlanChange(request));
  ASSERT_EQ(reserved.ranks.size(), 2u);
  EXPECT_EQ(reserved.ranks[0].peak_bytes, plain.ranks[0].peak_bytes);
  EXPECT_EQ(reserved.ranks[1].peak_bytes, plain.ranks[1].peak_bytes);
}

TEST(ChangePlan, SizesThatCannotBeAreRefusedWithThoseThatCan) {
  const auto refusal = [](int cp, CpRange range) {
    ChangeRequest request = Scaled(2, cp, 8);
    request.range = range;
    return PlanChange(request).status();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_STATUS(refusal(0, {1, 4}), kInvalid, "cannot plan cp=0: it can be 1 to 1,024.");
  EXPECT_STATUS(refusal(5, {1, 8}), kInvalid, "which 5 does not divide");
  EXPECT_STATUS(refusal(6, {1, 5}), kInvalid,
                "cannot plan cp=6: room is kept for cp 1 to 5 (--resize-range). cp can be 1, 2, 3 "
                "or 4.");
  EXPECT_EQ(DetailOf(refusal(6, {1, 5})).reason, ErrorReason::kPlanRefused);
  EXPECT_STATUS(refusal(5, {1, 4}), kInvalid, "cp can be 1, 2, 3 or 4.");
  EXPECT_EQ(DetailOf(refusal(12, {1, 16})).reason, ErrorReason::kNotEnoughWorkers);
  EXPECT_STATUS(refusal(12, {1, 4}), kInvalid, "room is kept for cp 1 to 4 (--resize-range)");
}

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

TEST(ChangePlan, TooFewWorkersAreCountedByWhoHasThem) {
  EXPECT_STATUS(PlanChange(Scaled(2, 4, 2)), kPrecondition,
                "cannot plan tp=1 cp=4 of replica 0: it needs 4 workers; it has 2, and no other is "
                "free.");
  EXPECT_STATUS(PlanChange(Scaled(2, 4, 3)), kPrecondition,
                "it needs 4 workers; it has 2, and 1 other is free.");
  EXPECT_STATUS(PlanChange(Scaled(2, 6, 5)), kPrecondition,
                "it needs 6 workers; it has 2, and 3 others are free.");
}

TEST(ChangePlan, ADrainedWorkerIsNotRecruitedAndNamedWhereItIsMissed) {
  ChangeRequest request = Scaled(2, 3, 3);
  request.inventory[2].drained = true;
  const absl::Status refused = PlanChange(request).status();
  EXPECT_STATUS(refused, kPrecondition,
                "it needs 3 workers; it has 2, and no other is free (w2 is drained).");
  EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kWorkerDrained);
  EXPECT_EQ(DetailOf(refused).workers, std::vector<std::string>{"w2"});
  request.config.cp = 1;
  EXPECT_OK(PlanChange(request));
}

TEST(ChangePlan, AWorkerOfAnotherModelIsNotRecruitedAndNamedWhereItIsMissed) {
  ChangeRequest request = Scaled(2, 3, 4);
  request.inventory[2].model.name = "other";
  request.inventory[2].model.digest = "00000000000000bb";
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(request));
  EXPECT_EQ(change.to.ranks[2].worker_id, "w3");
  request.inventory.pop_back();
  const absl::Status refused = PlanChange(request).status();
  EXPECT_STATUS(refused, kPrecondition,
                "no other is free. Workers hold different models: w2 holds other in float32 "
                "(digest 00000000000000bb); the replica holds llama-test in float32 (digest "
                "00000000000000aa).");
  EXPECT_EQ(DetailOf(refused).reason, ErrorReason::kDisagreement);
  EXPECT_EQ(DetailOf(refused).workers, std::vector<std::string>{"w2"});
  request.config.cp = 4;
  EXPECT_EQ(DetailOf(PlanChange(request).status()).reason, ErrorReason::kNotEnoughWorkers)
      << "it would not do with that one either";
}

TEST(ChangePlan, AWorkerOfAnotherBuildIsNotRecruitedAndNamedWhereItIsMissed) {
  ChangeRequest request = Scaled(1, 2, 3);
  for (Candidate& worker : request.inventory) worker.build = "0.1.0";
  request.inventory[1].build = "0.0.1";
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(request));
  EXPECT_EQ(change.to.ranks[1].worker_id, "w2");
  request.inventory.pop_back();
  EXPECT_STATUS(PlanChange(request), kPrecondition,
                "no other is free (w1 is of build 0.0.1, not 0.1.0).");
}

TEST(ChangePlan, RanksThatServeStayWhateverTheirBuild) {
  ChangeRequest request = Scaled(2, 3, 3);
  request.inventory[1].build = "another";
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(request));
  EXPECT_EQ(change.to.ranks[1].worker_id, "w1");
}

TEST(ChangePlan, TheLeaderStays) {
  ChangeRequest request = RequestFrom({.cp = 2}, 4);
  request.excluded = {"w0"};
  EXPECT_STATUS(PlanChange(request), absl::StatusCode::kFailedPrecondition,
                "worker w0 leads replica 0");
}

TEST(ChangePlan, ThePauseGrowsWithWhatIsWrittenWhenItBegins) {
  ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(Scaled(2, 4, 4)));
  CacheSummary cache = Scaled(2, 4, 4).cache;
  const absl::Duration few = PredictPause(cache, change);
  EXPECT_GE(few, absl::Milliseconds(1));
  cache.active_sequences = 1000000;
  EXPECT_NEAR(absl::ToDoubleSeconds(PredictPause(cache, change) - few), 4.096, 0.01);
}

// Where each block is before and after, from the rule alone.
TEST(ChangePlan, EveryBlockHasOneOwnerBeforeAndAfterAndBytesAreConserved) {
  std::mt19937 random(20261125);
  const std::vector<int> sizes = {1, 2, 3, 4};
  const auto pick = [&](int most) {
    return static_cast<int>(random() % static_cast<unsigned>(most));
  };
  for (int round = 0; round < 300; ++round) {
    const int tp = sizes[static_cast<size_t>(pick(2))];
    const int from = sizes[static_cast<size_t>(pick(4))], to = sizes[static_cast<size_t>(pick(4))];
    ChangeRequest request = Scaled(from, to, 8, tp);
    request.cache.blocks_by_index.assign(static_cast<size_t>(pick(12)), 0);
    uint64_t blocks = 0;
    std::vector<uint64_t> held(static_cast<size_t>(from * tp)),
        wanted(static_cast<size_t>(to * tp));
    for (size_t b = 0; b < request.cache.blocks_by_index.size(); ++b) {
      const auto count = static_cast<uint64_t>(pick(5));
      request.cache.blocks_by_index[b] = count;
      blocks += count;
      for (int t = 0; t < tp; ++t) {
        held[b % static_cast<size_t>(from) * static_cast<size_t>(tp) + static_cast<size_t>(t)] +=
            count;
        wanted[b % static_cast<size_t>(to) * static_cast<size_t>(tp) + static_cast<size_t>(t)] +=
            count;
      }
    }
    SCOPED_TRACE(absl::StrCat("round ", round, ": tp ", tp, ", cp ", from, " to ", to));
    ASSERT_OK_AND_ASSIGN(const ReplicaChange change, PlanChange(request));
    EXPECT_EQ(change.kv_blocks_moved + change.kv_blocks_kept, blocks);
    EXPECT_EQ(change.to.ranks[0].worker_id, change.from.ranks[0].worker_id);
    uint64_t bytes = 0;
    std::map<int, uint64_t> in, out;
    for (const BlockFlow& flow : change.flows) {
      EXPECT_NE(flow.from, flow.to);
      EXPECT_EQ(flow.bytes, flow.blocks * kBlockBytes);
      out[flow.from.value()] += flow.blocks;
      in[flow.to.value()] += flow.blocks;
      bytes += flow.bytes;
    }
    EXPECT_EQ(bytes, change.kv_bytes_moved);
    EXPECT_EQ(bytes, change.kv_blocks_moved * static_cast<uint64_t>(tp) * kBlockBytes);
    for (int rank = 0; rank < to * tp; ++rank) {
      const bool was = rank < from * tp;
      const uint64_t stayed = was ? held[static_cast<size_t>(rank)] - out[rank] : 0;
      EXPECT_EQ(stayed + in[rank], wanted[static_cast<size_t>(rank)]) << "rank " << rank;
      if (was) {
        EXPECT_EQ(change.to.ranks[static_cast<size_t>(rank)].worker_id,
                  change.from.ranks[static_cast<size_t>(rank)].worker_id);
      }
    }
  }
}

}  // namespace
}  // namespace muster
