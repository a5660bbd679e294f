#include "worker/engine/sequence_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

BatchLimits Limits() {
  return {.max_rows = 512, .max_slices = 4, .vocabulary = 100, .max_positions = 2048};
}

SequenceSlice Slice(const std::string& id, int tokens, uint32_t first = 0) {
  SequenceSlice slice;
  slice.sequence_id = id;
  slice.first_position = first;
  for (int i = 0; i < tokens; ++i) slice.token_ids.push_back(static_cast<uint32_t>(i % 100));
  return slice;
}

ForwardBatch Batch(std::vector<SequenceSlice> slices, const std::string& client = "client") {
  ForwardBatch batch;
  batch.client_id = client;
  batch.slices = std::move(slices);
  return batch;
}

template <typename Change>
absl::Status CheckChanged(Change change) {
  ForwardBatch batch = Batch({Slice("a", 2)});
  change(batch);
  return CheckBatch(batch, Limits());
}

TEST(CheckBatchTest, TakesWhatIsWithinItsLimits) {
  EXPECT_OK(CheckBatch(Batch({Slice("a", 500), Slice("b", 12)}), Limits()));
  EXPECT_OK(CheckChanged([](ForwardBatch& b) { b.slices[0].sampling = {.temperature = 1e30f}; }));
  EXPECT_OK(CheckChanged([](ForwardBatch& b) { b.slices[0].top_n = 64; }));
  EXPECT_OK(CheckChanged([](ForwardBatch& b) { b.slices[0].first_position = 2046; }));
}

TEST(CheckBatchTest, RefusesIdsTokensAndSlices) {
  const auto invalid = [](const char* what, auto change) {
    const absl::Status status = CheckChanged(change);
    EXPECT_STATUS(status, absl::StatusCode::kInvalidArgument, what);
    EXPECT_EQ(DetailOf(status).reason, ErrorReason::kInvalidRequest);
  };
  invalid("client id has 0 bytes", [](ForwardBatch& b) { b.client_id = ""; });
  invalid("client id has 129 bytes", [](ForwardBatch& b) { b.client_id.assign(129, 'x'); });
  invalid("a sequence id has 0 bytes", [](ForwardBatch& b) { b.slices[0].sequence_id = ""; });
  invalid("0 slices; it must have 1 to 4", [](ForwardBatch& b) { b.slices.clear(); });
  invalid("5 slices; it must have 1 to 4",
          [](ForwardBatch& b) { b.slices.resize(5, Slice("x", 1)); });
  invalid("'a' stands twice", [](ForwardBatch& b) { b.slices.push_back(Slice("a", 1)); });
  invalid("'a': the slice has no token", [](ForwardBatch& b) { b.slices[0].token_ids.clear(); });
  invalid("token id 100 is outside the vocabulary of 100",
          [](ForwardBatch& b) { b.slices[0].token_ids[1] = 100; });
  invalid("token id 4294967295", [](ForwardBatch& b) { b.slices[0].token_ids[1] = UINT32_MAX; });
}

TEST(CheckBatchTest, RefusesSamplingValues) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float temperature : {nan, infinity, -1.0f}) {
    EXPECT_STATUS(
        CheckChanged([&](ForwardBatch& b) { b.slices[0].sampling.temperature = temperature; }),
        absl::StatusCode::kInvalidArgument, "temperature");
  }
  for (const float top_p : {nan, 0.0f, -0.5f, 1.5f}) {
    EXPECT_STATUS(CheckChanged([&](ForwardBatch& b) { b.slices[0].sampling.top_p = top_p; }),
                  absl::StatusCode::kInvalidArgument, "top_p");
  }
  EXPECT_STATUS(CheckChanged([](ForwardBatch& b) { b.slices[0].top_n = 65; }),
                absl::StatusCode::kInvalidArgument, "top_n 65 must be at most 64");
}

TEST(CheckBatchTest, RefusesMoreRowsThanAStepHolds) {
  EXPECT_STATUS(CheckBatch(Batch({Slice("a", 500), Slice("b", 13)}), Limits()),
                absl::StatusCode::kResourceExhausted, "513 new tokens; at most 512");
}

TEST(CheckBatchTest, RefusesWhatIsBeyondTheContext) {
  const absl::Status status = CheckBatch(Batch({Slice("a", 2, 2047)}), Limits());
  EXPECT_STATUS(status, absl::StatusCode::kOutOfRange,
                "'a' would have 2049 tokens; the model's context is 2048");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kContextExceeded);
  EXPECT_STATUS(CheckBatch(Batch({Slice("a", 2, UINT32_MAX)}), Limits()),
                absl::StatusCode::kOutOfRange, "4294967297 tokens");
}

TEST(CheckBatchTest, ShowsIdsThatAreNoText) {
  EXPECT_EQ(Quoted("chat-42"), "'chat-42'");
  EXPECT_EQ(Quoted("a\n\xff"), "'a\\n\\xff'");
  EXPECT_EQ(Quoted(std::string(100, 'x')), "'" + std::string(40, 'x') + "...'");
}

TEST(OutputOfTest, GathersWhatTheAnswerNeeds) {
  SequenceSlice slice = Slice("a", 1);
  EXPECT_FALSE(OutputOf(slice, 3).has_value());
  slice.top_n = 5;
  EXPECT_EQ(OutputOf(slice, 3), (StepOutput{.row = 3, .candidates = 5}));
  slice.sample = true;
  EXPECT_EQ(OutputOf(slice, 3), (StepOutput{.row = 3, .candidates = 5}));
  slice.top_n = 0;
  EXPECT_EQ(OutputOf(slice, 3), (StepOutput{.row = 3, .candidates = 1}));
  slice.sampling = {.temperature = 2, .top_k = 20};
  EXPECT_EQ(OutputOf(slice, 3),
            (StepOutput{.row = 3, .candidates = 20, .inverse_temperature = 0.5f}));
  slice.sampling.top_k = 0;
  EXPECT_EQ(OutputOf(slice, 3), (StepOutput{.row = 3, .inverse_temperature = 0.5f, .whole = 1}));
  slice.sampling.top_k = 257;
  EXPECT_EQ(OutputOf(slice, 3)->whole, 1);
}

class SequenceTableTest : public ::testing::Test {
 protected:
  static SequenceTable Table(int cp = 2, int64_t blocks_per_rank = 4) {
    return SequenceTable(
        {.max_sequences = 3, .max_positions = 2048, .cp = cp, .blocks_per_rank = blocks_per_rank});
  }
};

TEST_F(SequenceTableTest, WritesRowsBlocksAndOutputsOfPrefillAndDecode) {
  SequenceTable table = Table();
  Step step;
  ForwardBatch prefill = Batch({Slice("a", 17), Slice("b", 1)});
  prefill.slices[0].sample = true;
  ASSERT_OK(table.Append(prefill, step));
  EXPECT_EQ(step.new_slots, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(step.blocks, (std::vector<StepBlock>{{0, 0, 0}, {0, 1, 0}, {1, 0, 1}}));
  EXPECT_EQ(step.rows.size(), 18u);
  EXPECT_EQ(step.rows[16], (StepRow{.token = 16, .position = 16, .slot = 0}));
  EXPECT_EQ(step.rows[17], (StepRow{.token = 0, .position = 0, .slot = 1}));
  EXPECT_EQ(step.bucket, 32);
  ASSERT_EQ(step.outputs.size(), 1u);
  EXPECT_EQ(step.outputs[0].row, 16);
  EXPECT_EQ(step.output_bucket, 1);

  ASSERT_OK(table.Append(Batch({Slice("b", 1, 1), Slice("a", 1, 17)}), step));
  EXPECT_TRUE(step.new_slots.empty());
  EXPECT_TRUE(step.blocks.empty());
  EXPECT_EQ(step.rows, (std::vector<StepRow>{{.token = 0, .position = 1, .slot = 1},
                                             {.token = 0, .position = 17, .slot = 0}}));
  EXPECT_EQ(step.output_bucket, 0);
}

TEST_F(SequenceTableTest, SequencesOfClientsAreTheirOwn) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(table.Append(Batch({Slice("a", 3)}, "one"), step));
  ASSERT_OK(table.Append(Batch({Slice("a", 5)}, "two"), step));
  EXPECT_EQ(step.rows[0].slot, 1);
  EXPECT_EQ(table.Free("one", {"a"}), 1);
  EXPECT_OK(table.Append(Batch({Slice("a", 1, 5)}, "two"), step));
}

TEST_F(SequenceTableTest, FreedSlotsAreToldInTheNextStepAndUsedAgain) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(table.Append(Batch({Slice("a", 40), Slice("b", 1)}), step));
  EXPECT_EQ(table.Free("client", {"a", "unknown"}), 1);
  EXPECT_EQ(table.Free("client", {"a"}), 0);
  ASSERT_OK(table.Append(Batch({Slice("c", 1)}), step));
  EXPECT_EQ(step.freed_slots, (std::vector<int32_t>{0}));
  EXPECT_EQ(step.new_slots, (std::vector<int32_t>{0}));
  ASSERT_OK(table.Append(Batch({Slice("c", 1, 1)}), step));
  EXPECT_TRUE(step.freed_slots.empty());
}

TEST_F(SequenceTableTest, RefusesAPositionThatDoesNotContinue) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(table.Append(Batch({Slice("a", 3)}), step));
  absl::Status status = table.Append(Batch({Slice("a", 1, 2)}), step);
  EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition,
                "'a' has 3 tokens; the slice begins at position 2");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kPositionMismatch);
  status = table.Append(Batch({Slice("new", 1, 2)}), step);
  EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition, "'new' has 0 tokens");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kUnknownSequence);
}

TEST_F(SequenceTableTest, NamesTheNumbersWhenBlocksRunOut) {
  SequenceTable table = Table(/*cp=*/1, /*blocks_per_rank=*/1456);
  Step step;
  ASSERT_OK(table.Append(Batch({Slice("big", 1334 * 16)}), step));
  const absl::Status status =
      table.Append(Batch({Slice("ok", 16), Slice("chat-42", 310 * 16)}), step);
  EXPECT_STATUS(status, absl::StatusCode::kResourceExhausted,
                "sequence 'chat-42' would need 310 KV blocks after 1 for others of the step; "
                "122 of 1,456 are free.");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kKvCapacity);
}

TEST_F(SequenceTableTest, SaysWhenOnlyOneCpRankIsFull) {
  SequenceTable table = Table(/*cp=*/2, /*blocks_per_rank=*/2);
  Step step;
  ASSERT_OK(table.Append(Batch({Slice("a", 1)}), step));
  ASSERT_OK(table.Append(Batch({Slice("b", 1)}), step));
  EXPECT_STATUS(table.Append(Batch({Slice("c", 1)}), step), absl::StatusCode::kResourceExhausted,
                "'c' would need 1 KV blocks; 2 of 4 are free, but not where");
}

TEST_F(SequenceTableTest, RefusesMoreSequencesThanSlots) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(table.Append(Batch({Slice("a", 1), Slice("b", 1)}), step));
  EXPECT_STATUS(table.Append(Batch({Slice("c", 1), Slice("d", 1)}), step),
                absl::StatusCode::kResourceExhausted, "begins 2 sequences; 2 are held");
}

TEST_F(SequenceTableTest, ARefusedStepChangesNothing) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(table.Append(Batch({Slice("a", 16)}), step));
  table.Free("client", {"a"});
  ASSERT_OK(table.Append(Batch({Slice("b", 16)}), step));
  table.Free("client", {"b"});
  const Capacity before = table.capacity();
  // Fits, but for the last slice.
  for (const SequenceSlice& bad : {Slice("x", 500), Slice("y", 1, 7)}) {
    EXPECT_FALSE(table.Append(Batch({Slice("c", 30), bad}), step).ok());
    EXPECT_EQ(table.capacity().free_blocks, before.free_blocks);
    EXPECT_EQ(table.capacity().sequences, before.sequences);
  }
  ASSERT_OK(table.Append(Batch({Slice("c", 1)}), step));
  EXPECT_EQ(step.freed_slots, (std::vector<int32_t>{0}));
  EXPECT_EQ(step.new_slots, (std::vector<int32_t>{0}));
}

TEST_F(SequenceTableTest, TheLongestPromptItPromisesFitsAndNoLonger) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 50; ++round) {
    SequenceTable table = Table(1 + static_cast<int>(random() % 4), 1 + random() % 9);
    Step step;
    table.Append(Batch({Slice("a", 1 + static_cast<int>(random() % 60))}), step).IgnoreError();
    const int longest = static_cast<int>(table.capacity().max_prompt_tokens);
    EXPECT_FALSE(table.Append(Batch({Slice("b", longest + 1)}), step).ok());
    if (longest > 0) {
      EXPECT_OK(table.Append(Batch({Slice("b", longest)}), step));
    }
  }
}

TEST_F(SequenceTableTest, EveryBlockComesBack) {
  SequenceTable table = Table();
  Step step;
  for (int round = 0; round < 20; ++round) {
    ASSERT_OK(table.Append(Batch({Slice("a", 64), Slice("b", 63)}), step));
    EXPECT_EQ(table.capacity().free_blocks, 0);
    EXPECT_EQ(table.capacity().sequences, 2);
    EXPECT_EQ(table.Free("client", {"a", "b"}), 2);
    EXPECT_EQ(table.capacity().free_blocks, 8);
  }
}

}  // namespace
}  // namespace muster
