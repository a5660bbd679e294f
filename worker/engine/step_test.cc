#include "worker/engine/step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

Step Example() {
  Step step;
  step.epoch = Epoch(7);
  step.number = StepNumber(41);
  step.bucket = 4;
  step.output_bucket = 2;
  step.freed_slots = {9};
  step.new_slots = {3, 4};
  step.layers = {2, 6};
  step.from_hidden = 1;
  step.hidden_of = 4;
  step.forks = {{.slot = 5, .parent = 6, .blocks = 3}};
  step.blocks = {{.slot = 3, .block = 0, .arena = 17},
                 {.slot = 4, .block = 5, .arena = 0, .replaces = 1}};
  step.rows = {{10, 0, 3}, {11, 1, 3}, {12, 90, 4}};
  step.outputs = {{.row = 1,
                   .candidates = 5,
                   .inverse_temperature = 0.5f,
                   .kind = OutputKind::kFiltered,
                   .top_k = 300,
                   .top_p = 0.25f,
                   .seed = uint64_t{7} << 40},
                  {.row = 2, .kind = OutputKind::kWhole}};
  return step;
}

StepBounds Bounds() {
  StepBounds bounds;
  bounds.limits = {.max_rows = 8, .max_outputs = 4, .max_sequences = 16, .max_local_blocks = 4};
  bounds.vocabulary = 100;
  bounds.max_positions = 100;
  bounds.layers = 6;
  bounds.cp = 2;
  bounds.arena_blocks = 20;
  return bounds;
}

std::string Encoded(const Step& step) {
  std::string bytes;
  EncodeStep(step, bytes);
  return bytes;
}

TEST(StepTest, ReadsWhatItWrote) {
  Step read;
  ASSERT_OK(DecodeStep(Encoded(Example()), Bounds().limits, read));
  EXPECT_EQ(read, Example());
  EXPECT_OK(CheckStep(read, Bounds()));
}

TEST(StepTest, ReadsIntoAStepThatHeldAnother) {
  Step read = Example();
  Step small;
  small.rows = {{1, 2, 3}};
  small.bucket = 1;
  ASSERT_OK(DecodeStep(Encoded(small), Bounds().limits, read));
  EXPECT_EQ(read, small);
}

TEST(StepTest, TheLongestStepHasMaxStepBytes) {
  const StepLimits limits = Bounds().limits;
  Step step;
  step.rows.resize(limits.max_rows);
  step.forks.resize(1);
  step.blocks.resize(
      static_cast<size_t>(std::max(limits.max_rows + limits.max_outputs, Step::kMaxMoves)));
  step.moves.resize(Step::kMaxMoves);
  step.freed_slots.resize(limits.max_sequences);
  step.new_slots.resize(limits.max_sequences);
  step.outputs.resize(limits.max_outputs);
  EXPECT_EQ(Encoded(step).size(), MaxStepBytes(limits));
}

TEST(StepTest, ComesBackWithItsKindAndItsMoves) {
  Step step;
  step.kind = StepKind::kPull;
  step.new_slots = {2};
  step.blocks = {{.slot = 2, .block = 1, .arena = 5}};
  step.moves = {{.from = 0, .from_arena = 3, .to = 0, .to_arena = 5, .stamp = 9}};
  Step read;
  ASSERT_OK(DecodeStep(Encoded(step), Bounds().limits, read));
  EXPECT_EQ(read, step);
  EXPECT_OK(CheckStep(read, Bounds()));
}

TEST(StepTest, AKindHasItsOwnPartsAndNoOthers) {
  Step step = Example();
  step.kind = StepKind::kHold;
  EXPECT_STATUS(CheckStep(step, Bounds()), absl::StatusCode::kInvalidArgument, "kind 3 with parts");
  step = Step();
  step.kind = static_cast<StepKind>(7);
  EXPECT_STATUS(CheckStep(step, Bounds()), absl::StatusCode::kInvalidArgument, "of kind 7");
  step.kind = StepKind::kSwitch;
  EXPECT_OK(CheckStep(step, Bounds()));
  step.kind = StepKind::kSeal;
  step.moves = {{.from = 9}};
  EXPECT_STATUS(CheckStep(step, Bounds()), absl::StatusCode::kInvalidArgument, "names cp rank 9");
}

TEST(StepTest, RefusesEveryChangedByte) {
  const std::string bytes = Encoded(Example());
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int bit : {0, 3, 7}) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      Step read;
      EXPECT_FALSE(DecodeStep(changed, Bounds().limits, read).ok()) << "byte " << i;
    }
  }
}

TEST(StepTest, RefusesEveryOtherLength) {
  const std::string bytes = Encoded(Example());
  Step read;
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_STATUS(DecodeStep(absl::string_view(bytes).substr(0, size), Bounds().limits, read),
                  absl::StatusCode::kDataLoss, "bytes");
  }
  EXPECT_FALSE(DecodeStep(bytes + "x", Bounds().limits, read).ok());
}

TEST(StepTest, NeverReadsBeyondRandomBytes) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 20000; ++round) {
    // A true beginning, so that some rounds get past the header.
    std::string bytes = Encoded(Example());
    bytes.resize(random() % (2 * bytes.size()));
    for (int change = 0; change < 4 && !bytes.empty(); ++change) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    Step read;
    if (DecodeStep(bytes, Bounds().limits, read).ok()) {
      EXPECT_EQ(read, Example());
    }
  }
}

TEST(StepTest, RefusesMoreThanTheLimits) {
  Step step = Example();
  step.rows.resize(9);
  Step read;
  EXPECT_STATUS(DecodeStep(Encoded(step), Bounds().limits, read),
                absl::StatusCode::kInvalidArgument, "9 rows; at most 8");
}

TEST(StepTest, NamesTheFieldOutOfBounds) {
  const auto expect = [](const char* what, auto change) {
    Step step = Example();
    change(step);
    EXPECT_STATUS(CheckStep(step, Bounds()), absl::StatusCode::kInvalidArgument, what);
  };
  expect("token 100; there are 100", [](Step& s) { s.rows[0].token = 100; });
  expect("token -1", [](Step& s) { s.rows[0].token = -1; });
  expect("slot 16", [](Step& s) { s.rows[1].slot = 16; });
  expect("position -2", [](Step& s) { s.rows[1].position = -2; });
  expect("position 100; there are 100", [](Step& s) { s.rows[1].position = 100; });
  expect("KV block of a sequence 8", [](Step& s) { s.blocks[0].block = 8; });
  expect("KV block 20", [](Step& s) { s.blocks[0].arena = 20; });
  expect("slot -1", [](Step& s) { s.freed_slots[0] = -1; });
  expect("slot 99", [](Step& s) { s.new_slots[1] = 99; });
  expect("output row 3; there are 3", [](Step& s) { s.outputs[0].row = 3; });
  expect("candidate count 257", [](Step& s) { s.outputs[0].candidates = 257; });
  expect("kind of output 4", [](Step& s) { s.outputs[1].kind = OutputKind(4); });
  expect("no finite number", [](Step& s) {
    s.outputs[0].inverse_temperature = std::numeric_limits<float>::quiet_NaN();
  });
  expect("kind of output -1", [](Step& s) { s.outputs[1].kind = OutputKind(-1); });
  expect("top_p 0", [](Step& s) { s.outputs[0].top_p = 0; });
  expect("top_p 1.5", [](Step& s) { s.outputs[0].top_p = 1.5f; });
  expect("top_p nan",
         [](Step& s) { s.outputs[0].top_p = std::numeric_limits<float>::quiet_NaN(); });
  expect("3 rows and 2 outputs in a bucket of 8", [](Step& s) { s.bucket = 8; });
  expect("and 4 outputs", [](Step& s) { s.output_bucket = 4; });
  expect("a step of 0 rows", [](Step& s) { s.rows.clear(); });
  expect("kind of KV block 2", [](Step& s) { s.blocks[1].replaces = 2; });
  expect("parent slot 16", [](Step& s) { s.forks[0].parent = 16; });
  expect("KV block of a sequence 8", [](Step& s) { s.forks[0].blocks = 9; });
  expect("KV block of a sequence -1", [](Step& s) { s.forks[0].blocks = 0; });
  expect("layers 2 to 7 of 6", [](Step& s) { s.layers.end = 7; });
  expect("layers 5 to 4", [](Step& s) { s.layers = {5, 4}; });
  expect("layers -1 to 6", [](Step& s) { s.layers.begin = -1; });
  expect("layers 2 to 5 of 6 with 2 outputs", [](Step& s) { s.layers.end = 5; });
  expect("kind of input 0", [](Step& s) { s.from_hidden = 0; });
  expect("layer 1 to keep", [](Step& s) { s.hidden_of = 1; });
  expect("layer 7 to keep", [](Step& s) { s.hidden_of = 7; });
}

TEST(StepTest, AForkNeedsNoRows) {
  Step step;
  step.forks = {{.slot = 5, .parent = 6, .blocks = 3}};
  EXPECT_OK(CheckStep(step, Bounds()));
  step.bucket = 1;
  EXPECT_FALSE(CheckStep(step, Bounds()).ok());
}

TEST(StepTest, BucketsArePowersOfTwo) {
  EXPECT_EQ(BucketOf(1), 1);
  EXPECT_EQ(BucketOf(3), 4);
  EXPECT_EQ(BucketOf(32), 32);
  EXPECT_EQ(BucketOf(33), 64);
  EXPECT_EQ(BucketOf(512), 512);
}

}  // namespace
}  // namespace muster
