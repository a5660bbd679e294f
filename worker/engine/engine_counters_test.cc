// What a replica counts of what it does.
#include "worker/engine/engine_counters.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/support/local_replica.h"
#include "tests/support/status_matchers.h"
#include "worker/model/golden.h"

namespace muster {
namespace {

using testing::ForwardAndWait;
using testing::LocalReplica;

constexpr auto kSum = static_cast<size_t>(CollectiveOp::kAllReduceRmsNorm);
constexpr auto kCombine = static_cast<size_t>(CollectiveOp::kCpCombine);

class EngineCountersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const Golden golden, ReadGolden("llama-gqa6"));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden.directory, "float32"));
  }

  // All its ranks count into one place.
  void Form(const ParallelConfig& config) {
    LocalReplica::Options options{.config = config};
    counters_ = options.context.counters;
    ASSERT_OK_AND_ASSIGN(replica_, LocalReplica::Form(model_, options));
  }

  void Run(std::vector<uint32_t> tokens, uint32_t position) {
    ASSERT_OK(ForwardAndWait(replica_->engine(), {.client_id = "c",
                                                  .slices = {{.sequence_id = "s",
                                                              .token_ids = std::move(tokens),
                                                              .first_position = position,
                                                              .sample = true}}}));
  }
  // Once all ranks are through with what was asked for.
  void End() {
    for (int rank = 0; rank < replica_->world(); ++rank) replica_->Destroy(rank);
  }

  ModelSource model_;
  std::shared_ptr<EngineCounters> counters_;
  std::unique_ptr<LocalReplica> replica_;
};

TEST_F(EngineCountersTest, TokensOfAPromptAreApartFromThoseThatFollowIt) {
  Form({});
  Run(std::vector<uint32_t>(7, 1), 0);
  EXPECT_EQ(counters_->tokens_prefill.value(), 7u);
  EXPECT_EQ(counters_->tokens_decode.value(), 0u);
  Run({1}, 7);
  EXPECT_EQ(counters_->tokens_prefill.value(), 7u);
  EXPECT_EQ(counters_->tokens_decode.value(), 1u);
}

TEST_F(EngineCountersTest, AStepIsCountedByHowItRan) {
  Form({});
  Run(std::vector<uint32_t>(7, 1), 0);
  EXPECT_EQ(counters_->steps_eager.value(), 1u);
  Run({1}, 7);
  EXPECT_EQ(counters_->steps_eager.value(), 1u);
  EXPECT_EQ(counters_->steps_graph.value(), 1u);
  EXPECT_EQ(counters_->graph_steps[0].value(), 1u) << "of one row";
  EXPECT_EQ(counters_->steps(), 2u);
}

TEST_F(EngineCountersTest, RowsOfPaddingAreWhatAGraphComputesInVain) {
  Form({});
  ASSERT_OK(ForwardAndWait(replica_->engine(),
                           {.client_id = "c",
                            .slices = {{.sequence_id = "a", .token_ids = {1}, .sample = true},
                                       {.sequence_id = "b", .token_ids = {1}, .sample = true},
                                       {.sequence_id = "c", .token_ids = {1}, .sample = true}}}));
  EXPECT_EQ(counters_->tokens_decode.value(), 3u);
  EXPECT_EQ(counters_->padding_rows.value(), 1u) << "3 rows in a graph of 4";
  EXPECT_EQ(counters_->graph_steps[2].value(), 1u);
}

TEST_F(EngineCountersTest, TimesAreObservedOncePerRequestAndStep) {
  Form({});
  Run(std::vector<uint32_t>(7, 1), 0);
  Run({1}, 7);
  uint64_t queued = 0, ran = 0;
  for (size_t i = 0; i < DurationHistogram::kBuckets; ++i) {
    queued += counters_->queue_time.count(i);
    ran += counters_->device_time.count(i);
  }
  EXPECT_EQ(counters_->requests.value(), 2u);
  EXPECT_EQ(queued, 2u);
  EXPECT_EQ(ran, 2u);
  EXPECT_GT(counters_->device_time.sum(), 0u);
}

TEST_F(EngineCountersTest, AGraphCountsTheCollectivesThatItsCallsWouldHave) {
  Form({.cp = 2});
  const uint64_t captured = counters_->collectives[kSum].value();
  EXPECT_EQ(captured, 0u) << "neither self-test nor capture is a step";
  Run({1}, 0);
  Run({1, 1}, 1);
  End();
  EXPECT_EQ(counters_->steps_graph.value(), 2u) << "of two ranks";
  EXPECT_EQ(counters_->steps_eager.value(), 2u);
  const uint64_t sums = counters_->collectives[kSum].value();
  EXPECT_GT(sums, 0u);
  EXPECT_EQ(sums % 4, 0u) << "four steps of as many each";
  EXPECT_GT(counters_->collectives[kCombine].value(), 0u);
  // One row in the graph, two in the other step: three times those of one row on each rank.
  EXPECT_EQ(counters_->collective_bytes[kSum].value() % 3, 0u);
}

TEST_F(EngineCountersTest, ARankAloneHasNoCollectives) {
  Form({});
  Run({1}, 0);
  EXPECT_EQ(counters_->collectives[kSum].value(), 0u);
  EXPECT_EQ(counters_->collectives[kCombine].value(), 0u);
}

TEST(EngineCounters, KeepWhatATakeoverTook) {
  EngineCounters counters;
  counters.NoteTakeover({.pause = absl::Milliseconds(4),
                         .kv_blocks_moved = 3,
                         .kv_bytes_moved = 4096,
                         .tokens_rebuilt = 2,
                         .sequences_dropped = 1});
  EXPECT_EQ(counters.resize_pause.sum(), 4'000'000u);
  EXPECT_EQ(counters.kv_blocks_moved.value(), 3u);
  EXPECT_EQ(counters.kv_bytes_moved.value(), 4096u);
  EXPECT_EQ(counters.tokens_rebuilt.value(), 2u);
  EXPECT_EQ(counters.sequences_dropped.value(), 1u);
}

}  // namespace
}  // namespace muster
