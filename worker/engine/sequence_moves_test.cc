// Sequences on their way to another epoch: every block has one place before and after.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/sequence_table.h"

namespace muster {
namespace {

constexpr BatchLimits kLimits{.max_rows = 512,
                              .max_slices = 32,
                              .vocabulary = 100,
                              .max_positions = 4096,
                              .layers = 2,
                              .hidden = 4};

// What the arenas and the tables of all cp ranks would hold, by what the steps say. A block holds
// the name of what was written there last.
class Ranks {
 public:
  using Place = std::pair<int, int32_t>;  // cp rank, arena block

  explicit Ranks(int cp) : cp_(cp) {}

  void Run(const Step& step) {
    Apply(step, tables_);
    for (const StepBlock& block : step.blocks) {
      if (block.replaces == 0) continue;
      contents_[{block.block % cp_, block.arena}] =
          contents_[replaced_.at({block.slot, block.block})];
    }
    for (const StepRow& row : step.rows) {
      const int block = row.position / kKvBlockTokens;
      const Place at{block % cp_, tables_.at(row.slot).at(block)};
      contents_[at] = absl::StrCat(contents_[at], " ", row.token, "@", row.position);
    }
  }
  void Pull(const Step& step) {
    Apply(step, next_tables_);
    for (const StepMove& move : step.moves) {
      contents_[{move.to, move.to_arena}] = contents_[{move.from, move.from_arena}];
    }
  }
  void Switch(int cp) {
    cp_ = cp;
    tables_.swap(next_tables_);
    next_tables_.clear();
  }
  void Resume() { next_tables_.clear(); }
  // What a sequence finds in its blocks.
  std::string Read(int slot) const {
    std::string all;
    const auto found = tables_.find(slot);
    if (found == tables_.end()) return all;
    for (const auto& [block, arena] : found->second) {
      const auto content = contents_.find({block % cp_, arena});
      if (content != contents_.end()) absl::StrAppend(&all, content->second);
    }
    return all;
  }

 private:
  using Tables = std::map<int, std::map<int, int32_t>>;  // by slot, by block

  void Apply(const Step& step, Tables& tables) {
    for (const int32_t slot : step.freed_slots) tables.erase(slot);
    for (const int32_t slot : step.new_slots) tables.erase(slot);
    for (const StepFork& fork : step.forks) {
      for (int b = 0; b < fork.blocks; ++b) tables[fork.slot][b] = tables[fork.parent][b];
    }
    replaced_.clear();
    for (const StepBlock& block : step.blocks) {
      int32_t& entry = tables[block.slot][block.block];
      if (block.replaces != 0) replaced_[{block.slot, block.block}] = {block.block % cp_, entry};
      // A block that is new holds nothing of whoever had it before.
      if (block.replaces == 0 && &tables == &tables_)
        contents_[{block.block % cp_, block.arena}] = "";
      entry = block.arena;
    }
  }

  int cp_;
  Tables tables_, next_tables_;
  std::map<std::pair<int, int>, Place> replaced_;
  std::map<Place, std::string> contents_;
};

class SequenceMovesTest : public ::testing::Test {
 protected:
  static constexpr int64_t kBlocks = 64;

  void Start(int cp, int64_t blocks = kBlocks) {
    table_.emplace(SequenceTable::Options{
        .limits = kLimits, .max_sequences = 8, .cp = cp, .blocks_per_rank = blocks});
    ranks_.emplace(cp);
  }
  absl::Status Write(const std::string& id, int count) { return WriteAll({id}, count); }
  // In one batch.
  absl::Status WriteAll(const std::vector<std::string>& ids, int count) {
    ForwardBatch batch{.client_id = "c"};
    for (const std::string& id : ids) {
      SequenceSlice& slice = batch.slices.emplace_back();
      slice.sequence_id = id;
      slice.first_position = slots_.contains(id) ? static_cast<uint32_t>(lengths_[id]) : 0;
      for (int i = 0; i < count; ++i) {
        slice.token_ids.push_back(static_cast<uint32_t>(next_++ % 100));
      }
    }
    std::vector<PlannedStep> steps;
    const absl::Status status = table_->Append(batch, steps);
    if (!status.ok()) return status;
    ranks_->Run(steps.at(0).step);
    for (size_t i = 0; i < steps[0].step.rows.size(); ++i) {
      const StepRow& row = steps[0].step.rows[i];
      const std::string& id = ids[i / static_cast<size_t>(count)];
      slots_[id] = row.slot;
      absl::StrAppend(&written_[id], " ", row.token, "@", row.position);
      lengths_[id] = row.position + 1;
    }
    return absl::OkStatus();
  }
  void Fork(const std::string& id, const std::string& child, int tokens = 0) {
    if (tokens == 0) tokens = lengths_[id];
    Step step;
    ASSERT_OK(table_->Fork({.client_id = "c",
                            .sequence_id = id,
                            .new_sequence_id = child,
                            .tokens = static_cast<uint32_t>(tokens)},
                           step));
    ranks_->Run(step);
    slots_[child] = step.new_slots.at(0);
    // A block that is shared in part holds more than the child has written; it is replaced,
    // contents and all, when the child goes on.
    written_[child] = written_[id];
    lengths_[child] = tokens;
  }
  void Free(const std::string& id) {
    EXPECT_EQ(table_->Free("c", {id}), 1);
    slots_.erase(id);
    written_.erase(id);
  }
  absl::Status Begin(int cp) {
    return table_->BeginMoves({.cp = cp, .blocks_per_rank = kBlocks}, {}, [this] {
      ++waits_;
      return true;
    });
  }
  // One part; whether there is more.
  absl::StatusOr<bool> Move(MoveScope scope, int most) {
    Step step;
    const absl::StatusOr<bool> more = table_->PlanMoves(scope, most, step);
    if (more.ok()) ranks_->Pull(step);
    return more;
  }
  absl::Status Finish(int cp) {
    while (true) {
      const absl::StatusOr<bool> more = Move(MoveScope::kAll, 3);
      if (!more.ok()) return more.status();
      if (!*more) break;
    }
    const absl::Status committed = table_->Commit();
    if (committed.ok()) ranks_->Switch(cp);
    return committed;
  }
  // Every sequence finds what was written to it; blocks are neither lost nor held twice.
  void Check() {
    for (const auto& [id, slot] : slots_) EXPECT_EQ(ranks_->Read(slot), written_[id]) << id;
    const CacheSummary summary = table_->Summary();
    uint64_t blocks = 0;
    for (const uint64_t count : summary.blocks_by_index) blocks += count;
    // Meanwhile blocks are kept for moves as well.
    if (!table_->moving()) {
      EXPECT_EQ(static_cast<int64_t>(blocks), table_->used_blocks());
    }
  }

  std::optional<SequenceTable> table_;
  std::optional<Ranks> ranks_;
  std::map<std::string, int> slots_, lengths_;
  std::map<std::string, std::string> written_;  // what the sequence's blocks are to hold
  std::map<int, std::string> by_block_;         // the same, by block
  int next_ = 0;
  int waits_ = 0;  // for copies
};

TEST_F(SequenceMovesTest, BlocksThatKeepTheirRankAreNotMoved) {
  Start(2);
  ASSERT_OK(Write("a", 8 * kKvBlockTokens));
  ASSERT_OK(Begin(4));
  ASSERT_OK(Finish(4));
  EXPECT_EQ(table_->blocks_moved(), 4);
  EXPECT_EQ(table_->blocks_kept(), 4);
  Check();
}

TEST_F(SequenceMovesTest, WhatIsWrittenAfterItWasMovedIsMovedAgain) {
  Start(1);
  ASSERT_OK(Write("a", 40));
  ASSERT_OK(Begin(2));
  ASSERT_OK(Move(MoveScope::kSettled, 100));
  ASSERT_OK(Write("a", 20));
  ASSERT_OK(Finish(2));
  Check();
}

TEST_F(SequenceMovesTest, ABlockIsNotGivenAwayWhileItIsCopied) {
  Start(1);
  ASSERT_OK(Write("a", 40));
  ASSERT_OK(Write("b", 40));
  ASSERT_OK(Begin(2));
  ASSERT_OK(Move(MoveScope::kSettled, 100));
  Free("a");
  EXPECT_EQ(waits_, 1);
  ASSERT_OK(Move(MoveScope::kSettled, 100));
  Free("b");
  EXPECT_EQ(waits_, 1);  // all had been copied before that part was asked for
}

TEST_F(SequenceMovesTest, WhatForksShareIsMovedOnceAndStaysShared) {
  Start(1);
  ASSERT_OK(Write("a", 4 * kKvBlockTokens));
  Fork("a", "b");
  ASSERT_OK(Begin(2));
  ASSERT_OK(Finish(2));
  EXPECT_EQ(table_->blocks_moved(), 2);
  EXPECT_EQ(table_->used_blocks(), 4);
  Check();
}

TEST_F(SequenceMovesTest, ABlockThatItsLastHoldersReplaceTogetherIsForgotten) {
  Start(1);
  ASSERT_OK(Write("a", 2 * kKvBlockTokens));
  ASSERT_OK(Begin(2));
  ASSERT_OK(Move(MoveScope::kSettled, 100));
  Fork("a", "b", 20);
  Fork("a", "c", 20);
  Free("a");
  ASSERT_OK(WriteAll({"b", "c"}, 1));
  ASSERT_OK(WriteAll({"d", "e"}, 2 * kKvBlockTokens));  // one of them gets that block
  ASSERT_OK(Finish(2));
  Check();
}

TEST_F(SequenceMovesTest, WhatFurtherLayersWriteIsMovedAgain) {
  Start(1);
  const auto run = [this](LayerRange layers) {
    SequenceSlice slice{.sequence_id = "a", .layers = layers};
    if (layers.begin == 0) {
      slice.token_ids.assign(5 * kKvBlockTokens, 7);
    } else {
      slice.hidden_states.assign(5 * kKvBlockTokens * kLimits.hidden, 0.5f);
    }
    std::vector<PlannedStep> steps;
    ASSERT_OK(table_->Append({.client_id = "c", .slices = {slice}}, steps));
    for (const PlannedStep& planned : steps) ranks_->Run(planned.step);
    slots_["a"] = steps.at(0).step.rows.at(0).slot;
    for (const StepRow& row : steps[0].step.rows) {
      absl::StrAppend(&by_block_[row.position / kKvBlockTokens], " ", row.token, "@", row.position);
    }
  };
  run({0, 1});
  ASSERT_OK(Begin(2));
  ASSERT_OK(Move(MoveScope::kAll, 100));  // as of one that was idle, all of its blocks
  run({1, 2});
  ASSERT_OK(Finish(2));
  for (const auto& [block, content] : by_block_) absl::StrAppend(&written_["a"], content);
  Check();
}

TEST_F(SequenceMovesTest, WhatCannotBeComputedAgainIsFoundHoweverLateItComes) {
  Start(2);
  ASSERT_OK(table_->BeginMoves({.cp = 1, .blocks_per_rank = 4, .keeps_kv = false}, {},
                               [] { return true; }));
  std::vector<PlannedStep> steps;
  ASSERT_OK(table_->Append(
      {.client_id = "c",
       .slices = {{.sequence_id = "fed", .hidden_states = std::vector<float>(kLimits.hidden)}}},
      steps));
  EXPECT_STATUS(Move(MoveScope::kAll, 100), absl::StatusCode::kFailedPrecondition, "c/fed");
  EXPECT_EQ(table_->Free("c", {"fed"}), 1);
  ASSERT_OK(Move(MoveScope::kAll, 100));
  ASSERT_OK(Write("long", 5 * kKvBlockTokens));
  EXPECT_STATUS(Move(MoveScope::kAll, 100), absl::StatusCode::kResourceExhausted,
                "it has room for 4");
}

TEST_F(SequenceMovesTest, ARankWithoutRoomIsToldBeforeAnythingHasChanged) {
  Start(2, 4);
  ASSERT_OK(Write("a", 8 * kKvBlockTokens));
  ASSERT_OK(Begin(1));
  EXPECT_STATUS(Move(MoveScope::kAll, 100), absl::StatusCode::kResourceExhausted,
                "cp rank 0 has no free KV block left of 4");
  table_->Rollback();
  ranks_->Resume();
  Check();
  EXPECT_EQ(table_->capacity().free_blocks, 0);
}

TEST_F(SequenceMovesTest, WhatIsAskedForNowGoesBeforeMoves) {
  Start(2, 4);
  ASSERT_OK(Write("a", 4 * kKvBlockTokens));
  ASSERT_OK(Begin(1));
  ASSERT_OK(Move(MoveScope::kSettled, 100));
  ASSERT_OK(Write("b", 4 * kKvBlockTokens));
  table_->Rollback();
  ranks_->Resume();
  Check();
}

TEST_F(SequenceMovesTest, WhatCannotBeMovedIsComputedAgain) {
  Start(2);
  ASSERT_OK(Write("a", 40));
  ASSERT_OK(table_->BeginMoves({.cp = 1, .blocks_per_rank = 9, .keeps_kv = false}, {},
                               [] { return true; }));
  ASSERT_OK(table_->Commit());
  EXPECT_EQ(table_->tokens_to_rebuild(), 40);
  std::vector<uint32_t> tokens;
  while (const auto batch = table_->NextRebuild(16)) {
    std::vector<PlannedStep> steps;
    ASSERT_OK(table_->Append(*batch, steps));
    const auto& slice = batch->slices.at(0);
    EXPECT_EQ(slice.first_position, tokens.size());
    tokens.insert(tokens.end(), slice.token_ids.begin(), slice.token_ids.end());
  }
  EXPECT_EQ(tokens.size(), 40u);
  EXPECT_EQ(tokens[39], 39u);
  EXPECT_EQ(table_->tokens_to_rebuild(), 0);
  EXPECT_EQ(table_->used_blocks(), 3);
}

TEST_F(SequenceMovesTest, RandomUseWithRandomResizesLosesNothing) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  const auto below = [&](int count) {
    return static_cast<int>(random() % static_cast<uint64_t>(count));
  };
  Start(2);
  int cp = 2, target = 0;
  for (int i = 0; i < 3000; ++i) {
    const std::string id = absl::StrCat("s", below(6));
    const bool held = slots_.contains(id);
    switch (below(8)) {
      case 0:
        if (held) Free(id);
        break;
      case 1:
        if (held && !slots_.contains("f")) Fork(id, "f");
        break;
      case 2:
        if (slots_.contains("f")) Free("f");
        break;
      case 3:
        if (table_->moving()) break;
        target = 1 + below(5);
        ASSERT_OK(Begin(target));
        break;
      case 4:
        if (!table_->moving()) break;
        ASSERT_OK(Move(MoveScope::kSettled, 1 + below(4)));
        break;
      case 5:
        if (!table_->moving() || below(4) != 0) break;
        if (below(2) == 0 && Finish(target).ok()) {
          cp = target;
        } else {
          table_->Rollback();
          ranks_->Resume();
        }
        break;
      default:
        // There may be no room.
        if (held && lengths_[id] >= 400) break;
        if (held && slots_.contains("f") && lengths_["f"] < 400 && below(2) == 0) {
          WriteAll({id, "f"}, 1 + below(40)).IgnoreError();
        } else {
          Write(id, 1 + below(40)).IgnoreError();
        }
        break;
    }
    Check();
    if (HasFailure()) return;
  }
  EXPECT_GE(cp, 1);
}

}  // namespace
}  // namespace muster
