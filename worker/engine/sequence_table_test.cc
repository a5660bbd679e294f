#include "worker/engine/sequence_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "base/status_macros.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

BatchLimits Limits() {
  return {.max_rows = 512,
          .max_slices = 4,
          .vocabulary = 100,
          .max_positions = 2048,
          .layers = 6,
          .hidden = 2};
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

TEST(CheckBatchTest, RefusesHiddenStates) {
  const auto invalid = [](const char* what, std::vector<float> values, bool tokens) {
    EXPECT_STATUS(CheckChanged([&](ForwardBatch& b) {
                    if (!tokens) b.slices[0].token_ids.clear();
                    b.slices[0].hidden_states = std::move(values);
                  }),
                  absl::StatusCode::kInvalidArgument, what);
  };
  invalid("token ids and hidden states", {1, 2}, true);
  invalid("3 numbers are no whole rows of hidden size 2", {1, 2, 3}, false);
  invalid("hidden state 1 of row 1 is nan", {1, 2, 3, NAN}, false);
  invalid("hidden state 0 of row 0 is -inf", {-INFINITY, 2}, false);
}

TEST(CheckBatchTest, RefusesLayers) {
  const auto invalid = [](const char* what, auto change) {
    EXPECT_STATUS(CheckChanged([&](ForwardBatch& b) { change(b.slices[0]); }),
                  absl::StatusCode::kInvalidArgument, what);
  };
  using Slice = SequenceSlice;
  invalid("layers 3 to 3 are no range", [](Slice& s) { s.layers = {3, 3}; });
  invalid("layers 4 to 2 are no range", [](Slice& s) { s.layers = {4, 2}; });
  invalid("layers 0 to 7 are no range of the model's 6", [](Slice& s) { s.layers = {0, 7}; });
  invalid("layers -1 to 6", [](Slice& s) { s.layers = {-1, 6}; });
  invalid("layer 3 takes hidden states", [](Slice& s) { s.layers = {3, 6}; });
  for (const auto ask : {+[](Slice& s) { s.sample = true; }, +[](Slice& s) { s.top_n = 1; },
                         +[](Slice& s) { s.return_logits = true; }}) {
    invalid("come from the last layer", [&](Slice& s) {
      s.layers = {0, 5};
      ask(s);
    });
  }
  invalid("hidden states of layer 7 are not among layers 0 to 6",
          [](Slice& s) { s.return_hidden_states = 7; });
  invalid("hidden states of layer 4294967295", [](Slice& s) { s.return_hidden_states = ~0u; });
  EXPECT_OK(CheckChanged([](ForwardBatch& b) {
    b.slices[0].layers = {0, 3};
    b.slices[0].return_hidden_states = 3;
  }));
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
  slice.return_logits = true;
  EXPECT_EQ(OutputOf(slice, 3), (StepOutput{.row = 3, .kind = OutputKind::kWhole}));
  slice.sample = false;
  EXPECT_EQ(OutputOf(slice, 3), (StepOutput{.row = 3, .kind = OutputKind::kWhole}));
}

TEST(OutputOfTest, GathersWhatIsDrawnFrom) {
  SequenceSlice slice = Slice("a", 1);
  slice.sample = true;
  slice.sampling = {.temperature = 2, .seed = 9};
  const StepOutput all{.row = 3, .inverse_temperature = 0.5f, .kind = OutputKind::kDraw, .seed = 9};
  EXPECT_EQ(OutputOf(slice, 3), all);
  StepOutput filtered{.row = 3,
                      .candidates = 20,
                      .inverse_temperature = 0.5f,
                      .kind = OutputKind::kFiltered,
                      .top_k = 20};
  slice.sampling.top_k = 20;
  EXPECT_EQ(OutputOf(slice, 3), filtered);
  slice.top_n = 25;
  filtered.candidates = 25;
  EXPECT_EQ(OutputOf(slice, 3), filtered);
  slice.sampling.top_k = filtered.top_k = 257;
  filtered.candidates = Step::kMaxCandidates;
  EXPECT_EQ(OutputOf(slice, 3), filtered);
  slice.sampling.top_k = filtered.top_k = 0;
  slice.sampling.top_p = filtered.top_p = 0.5f;
  EXPECT_EQ(OutputOf(slice, 3), filtered);
  slice.sampling.temperature = 1e-7f;  // as good as none
  EXPECT_EQ(OutputOf(slice, 3), (StepOutput{.row = 3, .candidates = 25}));
  slice.return_logits = true;
  EXPECT_EQ(OutputOf(slice, 3), (StepOutput{.row = 3, .kind = OutputKind::kWhole}));
}

class SequenceTableTest : public ::testing::Test {
 protected:
  static SequenceTable Table(int cp = 2, int64_t blocks_per_rank = 4) {
    return SequenceTable(
        {.limits = Limits(), .max_sequences = 3, .cp = cp, .blocks_per_rank = blocks_per_rank});
  }
  // A batch of one step.
  static absl::Status Append(SequenceTable& table, const ForwardBatch& batch, Step& step) {
    std::vector<PlannedStep> steps;
    MUSTER_RETURN_IF_ERROR(table.Append(batch, steps));
    EXPECT_EQ(steps.size(), 1u);
    step = steps.at(0).step;
    return absl::OkStatus();
  }
};

TEST_F(SequenceTableTest, WritesRowsBlocksAndOutputsOfPrefillAndDecode) {
  SequenceTable table = Table();
  Step step;
  ForwardBatch prefill = Batch({Slice("a", 17), Slice("b", 1)});
  prefill.slices[0].sample = true;
  ASSERT_OK(Append(table, prefill, step));
  EXPECT_EQ(step.new_slots, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(step.blocks, (std::vector<StepBlock>{{0, 0, 0}, {0, 1, 0}, {1, 0, 1}}));
  EXPECT_EQ(step.rows.size(), 18u);
  EXPECT_EQ(step.rows[16], (StepRow{.token = 16, .position = 16, .slot = 0}));
  EXPECT_EQ(step.rows[17], (StepRow{.token = 0, .position = 0, .slot = 1}));
  EXPECT_EQ(step.bucket, 32);
  ASSERT_EQ(step.outputs.size(), 1u);
  EXPECT_EQ(step.outputs[0].row, 16);
  EXPECT_EQ(step.output_bucket, 1);

  ASSERT_OK(Append(table, Batch({Slice("b", 1, 1), Slice("a", 1, 17)}), step));
  EXPECT_TRUE(step.new_slots.empty());
  EXPECT_TRUE(step.blocks.empty());
  EXPECT_EQ(step.rows, (std::vector<StepRow>{{.token = 0, .position = 1, .slot = 1},
                                             {.token = 0, .position = 17, .slot = 0}}));
  EXPECT_EQ(step.output_bucket, 0);
}

TEST_F(SequenceTableTest, SequencesOfClientsAreTheirOwn) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 3)}, "one"), step));
  ASSERT_OK(Append(table, Batch({Slice("a", 5)}, "two"), step));
  EXPECT_EQ(step.rows[0].slot, 1);
  EXPECT_EQ(table.Free("one", {"a"}), 1);
  EXPECT_OK(Append(table, Batch({Slice("a", 1, 5)}, "two"), step));
}

TEST_F(SequenceTableTest, FreedSlotsAreToldInTheNextStepAndUsedAgain) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 40), Slice("b", 1)}), step));
  EXPECT_EQ(table.Free("client", {"a", "unknown"}), 1);
  EXPECT_EQ(table.Free("client", {"a"}), 0);
  ASSERT_OK(Append(table, Batch({Slice("c", 1)}), step));
  EXPECT_EQ(step.freed_slots, (std::vector<int32_t>{0}));
  EXPECT_EQ(step.new_slots, (std::vector<int32_t>{0}));
  ASSERT_OK(Append(table, Batch({Slice("c", 1, 1)}), step));
  EXPECT_TRUE(step.freed_slots.empty());
}

TEST_F(SequenceTableTest, RefusesAPositionThatDoesNotContinue) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 3)}), step));
  absl::Status status = Append(table, Batch({Slice("a", 1, 2)}), step);
  EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition,
                "'a' has 3 tokens; the slice begins at position 2");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kPositionMismatch);
  status = Append(table, Batch({Slice("new", 1, 2)}), step);
  EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition, "'new' has 0 tokens");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kUnknownSequence);
}

TEST_F(SequenceTableTest, NamesTheNumbersWhenBlocksRunOut) {
  SequenceTable table = Table(/*cp=*/1, /*blocks_per_rank=*/1456);
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("big", 1334 * 16)}), step));
  const absl::Status status =
      Append(table, Batch({Slice("ok", 16), Slice("chat-42", 310 * 16)}), step);
  EXPECT_STATUS(status, absl::StatusCode::kResourceExhausted,
                "sequence 'chat-42' would need 310 KV blocks after 1 for others of the step; "
                "122 of 1,456 are free.");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kKvCapacity);
}

TEST_F(SequenceTableTest, SaysWhenOnlyOneCpRankIsFull) {
  SequenceTable table = Table(/*cp=*/2, /*blocks_per_rank=*/2);
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 1)}), step));
  ASSERT_OK(Append(table, Batch({Slice("b", 1)}), step));
  EXPECT_STATUS(Append(table, Batch({Slice("c", 1)}), step), absl::StatusCode::kResourceExhausted,
                "'c' would need 1 KV blocks; 2 of 4 are free, but not where");
}

TEST_F(SequenceTableTest, RefusesMoreSequencesThanSlots) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 1), Slice("b", 1)}), step));
  EXPECT_STATUS(Append(table, Batch({Slice("c", 1), Slice("d", 1)}), step),
                absl::StatusCode::kResourceExhausted, "2 sequences begin; 2 are held");
}

TEST_F(SequenceTableTest, ARefusedStepChangesNothing) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 16)}), step));
  table.Free("client", {"a"});
  ASSERT_OK(Append(table, Batch({Slice("b", 16)}), step));
  table.Free("client", {"b"});
  const Capacity before = table.capacity();
  // Fits, but for the last slice.
  for (const SequenceSlice& bad : {Slice("x", 500), Slice("y", 1, 7)}) {
    EXPECT_FALSE(Append(table, Batch({Slice("c", 30), bad}), step).ok());
    EXPECT_EQ(table.capacity().free_blocks, before.free_blocks);
    EXPECT_EQ(table.capacity().sequences, before.sequences);
  }
  ASSERT_OK(Append(table, Batch({Slice("c", 1)}), step));
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
    Append(table, Batch({Slice("a", 1 + static_cast<int>(random() % 60))}), step).IgnoreError();
    const int longest = static_cast<int>(table.capacity().max_prompt_tokens);
    EXPECT_FALSE(Append(table, Batch({Slice("b", longest + 1)}), step).ok());
    if (longest > 0) {
      EXPECT_OK(Append(table, Batch({Slice("b", longest)}), step));
    }
  }
}

TEST_F(SequenceTableTest, EveryBlockComesBack) {
  SequenceTable table = Table();
  Step step;
  for (int round = 0; round < 20; ++round) {
    ASSERT_OK(Append(table, Batch({Slice("a", 64), Slice("b", 63)}), step));
    EXPECT_EQ(table.capacity().free_blocks, 0);
    EXPECT_EQ(table.capacity().sequences, 2);
    EXPECT_EQ(table.Free("client", {"a", "b"}), 2);
    EXPECT_EQ(table.capacity().free_blocks, 8);
  }
}

ForkOrder Order(const std::string& from, const std::string& to,
                std::optional<uint32_t> tokens = std::nullopt) {
  return {.client_id = "client", .sequence_id = from, .new_sequence_id = to, .tokens = tokens};
}

SequenceSlice Hidden(const std::string& id, int tokens, uint32_t first, LayerRange layers) {
  SequenceSlice slice = Slice(id, 0, first);
  slice.hidden_states.assign(static_cast<size_t>(tokens) * 2, 0.5f);
  slice.layers = layers;
  return slice;
}

TEST_F(SequenceTableTest, AForkSharesBlocksUntilOneOfTheTwoWrites) {
  SequenceTable table = Table(/*cp=*/2, /*blocks_per_rank=*/4);
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 40)}), step));  // blocks 0, 1, 2
  const auto forked = table.Fork(Order("a", "b", 20), step);
  ASSERT_OK(forked);
  EXPECT_EQ(forked->tokens, 20);
  EXPECT_EQ(forked->shared_blocks, 2);
  EXPECT_EQ(step.new_slots, std::vector<int32_t>{1});
  EXPECT_EQ(step.forks, (std::vector<StepFork>{{.slot = 1, .parent = 0, .blocks = 2}}));
  EXPECT_TRUE(step.rows.empty());
  EXPECT_EQ(step.bucket, 0);
  EXPECT_EQ(table.used_blocks(), 3);

  // Block 1 holds tokens of both: the child gets one of its own.
  ASSERT_OK(Append(table, Batch({Slice("b", 1, 20)}), step));
  EXPECT_EQ(step.blocks,
            (std::vector<StepBlock>{{.slot = 1, .block = 1, .arena = 1, .replaces = 1}}));
  EXPECT_EQ(table.used_blocks(), 4);
  // Neither shares what it writes now.
  ASSERT_OK(Append(table, Batch({Slice("b", 1, 21), Slice("a", 1, 40)}), step));
  EXPECT_TRUE(step.blocks.empty());
  EXPECT_EQ(table.Free("client", {"a"}), 1);
  EXPECT_EQ(table.used_blocks(), 2);  // block 0 is still the child's
  EXPECT_EQ(table.Free("client", {"b"}), 1);
  EXPECT_EQ(table.used_blocks(), 0);
}

TEST_F(SequenceTableTest, AParentThatWritesFirstGetsTheCopy) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 20)}), step));
  ASSERT_OK(table.Fork(Order("a", "b"), step));
  ASSERT_OK(Append(table, Batch({Slice("a", 1, 20)}), step));
  EXPECT_EQ(step.blocks,
            (std::vector<StepBlock>{{.slot = 0, .block = 1, .arena = 1, .replaces = 1}}));
  ASSERT_OK(Append(table, Batch({Slice("b", 1, 20)}), step));
  EXPECT_TRUE(step.blocks.empty());
}

TEST_F(SequenceTableTest, AForkAtTheEndOfABlockCopiesNothing) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 32)}), step));
  ASSERT_OK(table.Fork(Order("a", "b"), step));
  ASSERT_OK(Append(table, Batch({Slice("a", 1, 32), Slice("b", 1, 32)}), step));
  EXPECT_EQ(step.blocks, (std::vector<StepBlock>{{.slot = 0, .block = 2, .arena = 1},
                                                 {.slot = 1, .block = 2, .arena = 2}}));
}

TEST_F(SequenceTableTest, RefusesForksAndChangesNothing) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 20), Slice("b", 1)}), step));
  const Capacity before = table.capacity();
  const auto refused = [&](const ForkOrder& order, absl::StatusCode code, ErrorReason reason) {
    const absl::Status status = table.Fork(order, step).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(DetailOf(status).reason, reason);
  };
  using Code = absl::StatusCode;
  refused(Order("x", "c"), Code::kFailedPrecondition, ErrorReason::kUnknownSequence);
  refused(Order("a", "b"), Code::kAlreadyExists, ErrorReason::kSequenceExists);
  refused(Order("a", "a"), Code::kAlreadyExists, ErrorReason::kSequenceExists);
  refused(Order("a", "c", 21), Code::kOutOfRange, ErrorReason::kPositionMismatch);
  refused(Order("a", "c", 0), Code::kOutOfRange, ErrorReason::kPositionMismatch);
  ForkOrder stranger = Order("a", "c");
  stranger.client_id = "another";
  refused(stranger, Code::kFailedPrecondition, ErrorReason::kUnknownSequence);
  EXPECT_EQ(table.capacity(), before);
  ASSERT_OK(table.Fork(Order("a", "c"), step));
  refused(Order("a", "d"), Code::kResourceExhausted, ErrorReason::kKvCapacity);
}

TEST_F(SequenceTableTest, ForksTellWhatWasFreedBeforeThem) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(Append(table, Batch({Slice("a", 20), Slice("b", 1)}), step));
  table.Free("client", {"b"});
  ASSERT_OK(table.Fork(Order("a", "c"), step));
  EXPECT_EQ(step.freed_slots, std::vector<int32_t>{1});
  EXPECT_EQ(step.new_slots, std::vector<int32_t>{1});
}

TEST_F(SequenceTableTest, LengthIsKeptPerLayerRange) {
  SequenceTable table = Table();
  Step step;
  SequenceSlice front = Slice("a", 20);
  front.layers = {0, 3};
  front.return_hidden_states = 3;
  ASSERT_OK(Append(table, Batch({front}), step));
  EXPECT_EQ(step.layers, (LayerRange{0, 3}));
  EXPECT_EQ(step.hidden_of, 3);
  EXPECT_EQ(step.blocks.size(), 2u);
  // All layers, or half of them, are not of one length.
  EXPECT_STATUS(Append(table, Batch({Slice("a", 1, 20)}), step),
                absl::StatusCode::kFailedPrecondition, "layers 0 to 6 do not all have the same");
  EXPECT_STATUS(table.Fork(Order("a", "b"), step).status(), absl::StatusCode::kOutOfRange,
                "has 0 tokens in all layers");
  // The rest catches up in pieces, into the blocks that are there.
  ASSERT_OK(Append(table, Batch({Hidden("a", 12, 0, {3, 6})}), step));
  EXPECT_EQ(step.from_hidden, 1);
  EXPECT_TRUE(step.blocks.empty());
  EXPECT_EQ(step.rows[11], (StepRow{.token = 0, .position = 11, .slot = 0}));
  EXPECT_EQ(table.Fork(Order("a", "b"), step)->tokens, 12);
  // The block that the fork shares is replaced when the rest goes on.
  ASSERT_OK(Append(table, Batch({Hidden("a", 8, 12, {3, 6})}), step));
  ASSERT_EQ(step.blocks.size(), 1u);
  EXPECT_EQ(step.blocks[0].block, 0);
  EXPECT_EQ(step.blocks[0].replaces, 1);
  EXPECT_OK(Append(table, Batch({Slice("a", 1, 20)}), step));
}

TEST_F(SequenceTableTest, SlicesOfTheSameLayersShareAStep) {
  SequenceTable table = Table();
  SequenceSlice front = Slice("b", 2);
  front.layers = {0, 3};
  SequenceSlice sampled = Slice("c", 3);
  sampled.sample = true;
  std::vector<PlannedStep> steps;
  ASSERT_OK(table.Append(Batch({Slice("a", 1), front, sampled}), steps));
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].slices, (std::vector<int>{0, 2}));
  EXPECT_EQ(steps[0].step.bucket, 4);
  EXPECT_EQ(steps[0].step.outputs.front().row, 3);
  EXPECT_EQ(steps[1].slices, std::vector<int>{1});
  EXPECT_EQ(steps[1].step.output_bucket, 0);
}

TEST_F(SequenceTableTest, CountsWhatCannotBeRebuiltFromTokens) {
  SequenceTable table = Table();
  Step step;
  ASSERT_OK(Append(table, Batch({Hidden("a", 2, 0, {0, 6})}), step));
  ASSERT_OK(Append(table, Batch({Slice("a", 1, 2)}), step));
  ASSERT_OK(Append(table, Batch({Slice("b", 1)}), step));
  EXPECT_EQ(table.capacity().not_rebuildable, 1);
  ASSERT_OK(table.Fork(Order("a", "c"), step));
  EXPECT_EQ(table.capacity().not_rebuildable, 2);
  table.Free("client", {"a"});
  EXPECT_EQ(table.capacity().not_rebuildable, 1);
  EXPECT_EQ(table.FreeAll("client"), 2);
  EXPECT_EQ(table.FreeAll("client"), 0);
  EXPECT_EQ(table.capacity().not_rebuildable, 0);
  EXPECT_EQ(table.capacity().sequences, 0);
}

}  // namespace
}  // namespace muster
