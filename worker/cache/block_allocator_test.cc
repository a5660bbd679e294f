#include "worker/cache/block_allocator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

TEST(KvBlockAllocatorTest, BlocksGoRoundTheCpRanks) {
  KvBlockAllocator allocator(2, 4);
  const auto granted = allocator.Allocate({{.from = 0, .to = 33}});
  ASSERT_OK(granted);
  EXPECT_EQ(granted->front(), (std::vector<BlockGrant>{{.logical = 0, .local = 0},
                                                       {.logical = 1, .local = 0},
                                                       {.logical = 2, .local = 1}}));
  EXPECT_EQ(allocator.free_blocks(0), 2);
  EXPECT_EQ(allocator.free_blocks(1), 3);
  EXPECT_EQ(allocator.free_blocks(), 5);
}

TEST(KvBlockAllocatorTest, TokensWithinABlockTakeNoOther) {
  KvBlockAllocator allocator(1, 4);
  ASSERT_OK(allocator.Allocate({{.from = 0, .to = 1}}));
  const auto within = allocator.Allocate({{.from = 1, .to = 16}});
  ASSERT_OK(within);
  EXPECT_TRUE(within->front().empty());
  const auto next = allocator.Allocate({{.from = 16, .to = 17}});
  ASSERT_OK(next);
  EXPECT_EQ(next->front(), (std::vector<BlockGrant>{{.logical = 1, .local = 1}}));
}

TEST(KvBlockAllocatorTest, ABatchThatDoesNotFitTakesNothing) {
  KvBlockAllocator allocator(2, 2);
  // Two sequences of 3 blocks: rank 0 would need 4.
  const absl::Status status =
      allocator.Allocate({{.from = 0, .to = 48}, {.from = 0, .to = 48}}).status();
  EXPECT_STATUS(status, absl::StatusCode::kResourceExhausted,
                "6 KV blocks are needed, 4 of them on cp rank 0, where 2 of 2 are free; in all 4 "
                "of 4 are free");
  EXPECT_EQ(DetailOf(status).reason, ErrorReason::kKvCapacity);
  EXPECT_EQ(allocator.free_blocks(), 4);
  EXPECT_OK(allocator.Allocate({{.from = 0, .to = 48}}));
}

TEST(KvBlockAllocatorTest, RefusesNonsense) {
  KvBlockAllocator allocator(2, 2);
  EXPECT_STATUS(allocator.Allocate({{.from = 5, .to = 4}}).status(),
                absl::StatusCode::kInvalidArgument, "cannot grow from 5 to 4 tokens");
  EXPECT_STATUS(allocator.Allocate({{.from = -1, .to = 4}}).status(),
                absl::StatusCode::kInvalidArgument, "from -1");
  EXPECT_STATUS(allocator.Allocate({{.from = 0, .to = int64_t{1} << 60}}).status(),
                absl::StatusCode::kResourceExhausted, "are needed");
  EXPECT_STATUS(allocator.Free({{.logical = 0, .local = 0}}), absl::StatusCode::kInvalidArgument,
                "KV block 0 in arena block 0 is not allocated");
  const auto granted = allocator.Allocate({{.from = 0, .to = 16}});
  ASSERT_OK(granted);
  const BlockGrant block = granted->front().front();
  EXPECT_STATUS(allocator.Free({block, block}), absl::StatusCode::kInvalidArgument, "");
  EXPECT_STATUS(allocator.Free({{.logical = 1, .local = block.local}}),
                absl::StatusCode::kInvalidArgument, "");
  EXPECT_STATUS(allocator.Free({{.logical = 0, .local = 2}}), absl::StatusCode::kInvalidArgument,
                "");
  EXPECT_OK(allocator.Free({block}));
  EXPECT_STATUS(allocator.Free({block}), absl::StatusCode::kInvalidArgument, "");
}

TEST(KvBlockAllocatorTest, TheLargestAdmissibleFitsAndNoLonger) {
  KvBlockAllocator allocator(3, 5);
  EXPECT_EQ(allocator.LargestAdmissible(), allocator.Capacity());
  EXPECT_EQ(allocator.Capacity(), 3 * 5 * 16);
  // Leaves 3, 4, 4 free: a new sequence lacks its fourth block of rank 0, its tenth.
  ASSERT_OK(allocator.Allocate({{.from = 0, .to = 4 * 16}}));
  const int64_t largest = allocator.LargestAdmissible();
  EXPECT_EQ(largest, 9 * 16);
  EXPECT_FALSE(allocator.Allocate({{.from = 0, .to = largest + 1}}).ok());
  EXPECT_OK(allocator.Allocate({{.from = 0, .to = largest}}));
}

// The allocator as one would write it without thinking of speed.
class NaiveAllocator {
 public:
  NaiveAllocator(int cp, int64_t blocks) : cp_(cp), blocks_(blocks) {}

  bool Fits(int64_t from, int64_t to, int64_t replaced = -1) const {
    std::map<int64_t, int64_t> needed;
    if (replaced >= 0) ++needed[replaced % cp_];
    for (int64_t token = from; token < to; ++token) {
      if (token % kKvBlockTokens == 0) ++needed[token / kKvBlockTokens % cp_];
    }
    for (const auto& [rank, count] : needed) {
      if (count > blocks_ - Used(rank)) return false;
    }
    return true;
  }
  // Whether the block was free.
  bool Take(const BlockGrant& block) {
    return block.local >= 0 && block.local < blocks_ && ++held_[KeyOf(block)] == 1;
  }
  void Share(const BlockGrant& block) { ++held_[KeyOf(block)]; }
  void Give(const BlockGrant& block) {
    if (--held_[KeyOf(block)] == 0) held_.erase(KeyOf(block));
  }
  bool IsShared(const BlockGrant& block) const { return held_.at(KeyOf(block)) > 1; }
  int64_t Used(int64_t rank) const {
    int64_t count = 0;
    for (const auto& [key, holders] : held_) count += key.first == rank;
    return count;
  }

 private:
  using Key = std::pair<int64_t, int32_t>;  // cp rank, arena block
  Key KeyOf(const BlockGrant& block) const { return {block.logical % cp_, block.local}; }

  int cp_;
  int64_t blocks_;
  std::map<Key, int> held_;
};

struct Sequence {
  int64_t tokens = 0;
  std::vector<BlockGrant> blocks;
};

// Blocks 0, 1, 2, ... of the sequence, none missing.
void ExpectWhole(const Sequence& sequence) {
  ASSERT_EQ(static_cast<int64_t>(sequence.blocks.size()), KvBlocksFor(sequence.tokens));
  for (size_t i = 0; i < sequence.blocks.size(); ++i) {
    ASSERT_EQ(sequence.blocks[i].logical, static_cast<int64_t>(i));
  }
}

// One allocator beside the other, under sequences that grow, fork, write and end.
class Lives {
 public:
  Lives(int cp, int64_t blocks)
      : cp_(cp), blocks_(blocks), allocator_(cp, blocks), naive_(cp, blocks) {}

  Sequence& sequence(size_t index) { return sequences_[index % sequences_.size()]; }

  void End(Sequence& sequence) {
    ASSERT_OK(allocator_.Free(sequence.blocks));
    for (const BlockGrant& block : sequence.blocks) naive_.Give(block);
    sequence = Sequence();
  }
  void Fork(const Sequence& parent, Sequence& child, int64_t tokens) {
    if (&parent == &child) return;
    End(child);
    child.tokens = std::min(tokens, parent.tokens);
    child.blocks.assign(parent.blocks.begin(), parent.blocks.begin() + KvBlocksFor(child.tokens));
    ASSERT_OK(allocator_.Share(child.blocks));
    for (const BlockGrant& block : child.blocks) naive_.Share(block);
  }
  void Grow(Sequence& sequence, int64_t to) {
    // The block that the next token goes into, where others hold it too.
    const int64_t written = sequence.tokens / kKvBlockTokens;
    const bool partial = sequence.tokens % kKvBlockTokens != 0 && to > sequence.tokens;
    const int64_t replaced = partial && naive_.IsShared(sequence.blocks[written]) ? written : -1;
    if (partial) {
      ASSERT_EQ(allocator_.IsShared(sequence.blocks[written]), replaced >= 0);
    }
    const bool fits = naive_.Fits(sequence.tokens, to, replaced);
    const auto granted =
        allocator_.Allocate({{.from = sequence.tokens, .to = to, .replaced = replaced}});
    ASSERT_EQ(granted.ok(), fits) << granted.status();
    if (!fits) return;
    sequence.tokens = to;
    for (const BlockGrant& block : granted->front()) {
      ASSERT_TRUE(naive_.Take(block));
      if (block.logical != replaced) {
        sequence.blocks.push_back(block);
        continue;
      }
      ASSERT_OK(allocator_.Free({sequence.blocks[replaced]}));
      naive_.Give(std::exchange(sequence.blocks[replaced], block));
    }
    ExpectWhole(sequence);
  }
  void ExpectAgreement() {
    for (int rank = 0; rank < cp_; ++rank) {
      ASSERT_EQ(allocator_.free_blocks(rank), blocks_ - naive_.Used(rank));
    }
    ASSERT_TRUE(naive_.Fits(0, allocator_.LargestAdmissible()));
    ASSERT_FALSE(naive_.Fits(0, allocator_.LargestAdmissible() + 1));
  }

 private:
  const int cp_;
  const int64_t blocks_;
  KvBlockAllocator allocator_;
  NaiveAllocator naive_;
  std::vector<Sequence> sequences_ = std::vector<Sequence>(5);
};

TEST(KvBlockAllocatorTest, AgreesWithANaiveOneOverRandomLives) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::minstd_rand random(seed);
    const int cp = 1 + static_cast<int>(random() % 4);
    const int64_t blocks = 1 + static_cast<int64_t>(random() % 12);
    Lives lives(cp, blocks);
    for (int step = 0; step < 300 && !::testing::Test::HasFatalFailure(); ++step) {
      Sequence& sequence = lives.sequence(random());
      const auto tokens = static_cast<int64_t>(random() % 100);
      if (random() % 4 == 0) lives.End(sequence);
      if (random() % 3 == 0) {
        lives.Fork(sequence, lives.sequence(random()), tokens);
      } else {
        lives.Grow(sequence, sequence.tokens + tokens);
      }
      lives.ExpectAgreement();
    }
  }
}

TEST(KvBlockAllocatorRedeal, TheHoldersOfABlockGoWithIt) {
  KvBlockAllocator allocator(1, 4);
  ASSERT_OK_AND_ASSIGN(const auto granted, allocator.Allocate({{{.from = 0, .to = 32}}}));
  ASSERT_OK(allocator.Share(granted[0]));
  allocator.GrowPlaces(2);
  EXPECT_EQ(allocator.total_blocks(), 4);
  ASSERT_OK_AND_ASSIGN(const int32_t to, allocator.Reserve(1));
  EXPECT_EQ(allocator.holders(1, to), -1);
  ASSERT_OK(allocator.Redeal(
      2, {{{.from = 0, .from_local = granted[0][1].local, .to = 1, .to_local = to}}}));
  EXPECT_EQ(allocator.cp(), 2);
  EXPECT_EQ(allocator.holders(1, to), 2);
  EXPECT_EQ(allocator.free_blocks(0), 3);
  EXPECT_EQ(allocator.free_blocks(1), 3);
  EXPECT_OK(allocator.Free({{.logical = 1, .local = to}}));
}

TEST(KvBlockAllocatorRedeal, WhatIsNotReservedOrStillHeldIsRefused) {
  KvBlockAllocator allocator(2, 2);
  ASSERT_OK_AND_ASSIGN(const auto granted, allocator.Allocate({{{.from = 0, .to = 32}}}));
  const int32_t held = granted[0][1].local;
  EXPECT_STATUS(allocator.Redeal(1, {}), absl::StatusCode::kInvalidArgument,
                "cp rank 1 still holds KV block");
  EXPECT_STATUS(allocator.Redeal(1, {{{.from = 1, .from_local = held, .to = 0, .to_local = 1}}}),
                absl::StatusCode::kInvalidArgument, "cannot become");
  ASSERT_OK_AND_ASSIGN(const int32_t to, allocator.Reserve(0));
  EXPECT_STATUS(allocator.Reserve(0), absl::StatusCode::kResourceExhausted,
                "cp rank 0 has no free KV block left of 2");
  ASSERT_OK(allocator.Redeal(1, {{{.from = 1, .from_local = held, .to = 0, .to_local = to}}}));
  EXPECT_EQ(allocator.total_blocks(), 2);
  EXPECT_EQ(allocator.free_blocks(), 0);
}

TEST(KvBlockAllocatorRedeal, NonsenseIsRefusedAndChangesNothing) {
  KvBlockAllocator allocator(2, 2);
  ASSERT_OK_AND_ASSIGN(const auto granted, allocator.Allocate({{{.from = 0, .to = 32}}}));
  ASSERT_OK_AND_ASSIGN(const int32_t to, allocator.Reserve(0));
  const BlockMove good = {.from = 1, .from_local = granted[0][1].local, .to = 0, .to_local = to};
  for (const BlockMove& bad : {BlockMove{.from = 2, .to_local = to}, BlockMove{.from = -1},
                               BlockMove{.from = 1, .from_local = 2, .to = 0, .to_local = to},
                               BlockMove{.from = 1, .from_local = 0, .to = 0, .to_local = -1}}) {
    EXPECT_STATUS(allocator.Redeal(1, {bad}), absl::StatusCode::kInvalidArgument, "cannot become");
  }
  EXPECT_STATUS(allocator.Redeal(1, {good, good}), absl::StatusCode::kInvalidArgument, "");
  EXPECT_STATUS(allocator.Redeal(0, {good}), absl::StatusCode::kInvalidArgument, "0 cp ranks");
  EXPECT_EQ(allocator.free_blocks(), 1);
  EXPECT_EQ(allocator.cp(), 2);
  EXPECT_OK(allocator.Redeal(1, {good}));
}

TEST(KvBlockAllocatorRedeal, APlaceThatReservesIsNotDropped) {
  KvBlockAllocator allocator(1, 2);
  allocator.GrowPlaces(2);
  ASSERT_OK_AND_ASSIGN(const int32_t local, allocator.Reserve(1));
  EXPECT_EQ(allocator.free_blocks(), 2);
  EXPECT_STATUS(allocator.Redeal(1, {}), absl::StatusCode::kInvalidArgument,
                "cp rank 1 still reserves KV block 0");
  allocator.Unreserve(1, local);
  allocator.Unreserve(1, local);  // it is free already
  EXPECT_EQ(allocator.holders(1, local), 0);
  EXPECT_OK(allocator.Redeal(1, {}));
}

// The moves that bring each block of each sequence to its rank of `cp`, and the blocks there; false
// when they do not fit, in which case nothing stays reserved.
bool PlanMoves(KvBlockAllocator& allocator, int cp, std::vector<Sequence>& sequences,
               std::vector<BlockMove>& moves) {
  std::map<std::pair<int, int32_t>, BlockMove> known;
  for (Sequence& sequence : sequences) {
    for (BlockGrant& block : sequence.blocks) {
      const int from = static_cast<int>(block.logical % allocator.cp());
      const int to = static_cast<int>(block.logical % cp);
      if (from == to) continue;
      auto found = known.find({from, block.local});
      if (found == known.end()) {
        const absl::StatusOr<int32_t> local = allocator.Reserve(to);
        if (!local.ok()) {
          for (const auto& [place, move] : known) allocator.Unreserve(move.to, move.to_local);
          return false;
        }
        found = known.insert({{from, block.local}, {from, block.local, to, *local}}).first;
      }
      block.local = found->second.to_local;
    }
  }
  for (const auto& [place, move] : known) moves.push_back(move);
  return true;
}

int64_t HeldBlocks(const std::vector<Sequence>& sequences, int cp) {
  std::set<std::pair<int64_t, int32_t>> held;
  for (const Sequence& sequence : sequences) {
    for (const BlockGrant& block : sequence.blocks) held.insert({block.logical % cp, block.local});
  }
  return static_cast<int64_t>(held.size());
}

// Sequences 1, 2, ... are new or share all whole blocks of another.
std::vector<Sequence> RandomSequences(KvBlockAllocator& allocator, std::minstd_rand& random) {
  std::vector<Sequence> sequences;
  for (int i = 0; i < 6; ++i) {
    Sequence sequence;
    if (!sequences.empty() && random() % 3 == 0) {
      sequence = sequences[random() % sequences.size()];
      EXPECT_OK(allocator.Share(sequence.blocks));
    } else {
      sequence.tokens = static_cast<int64_t>(random() % 100);
      const auto granted = allocator.Allocate({{.from = 0, .to = sequence.tokens}});
      if (!granted.ok()) continue;
      sequence.blocks = granted->front();
    }
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

TEST(KvBlockAllocatorRedeal, RandomMovesKeepEveryBlockAndItsHolders) {
  int made = 0;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::minstd_rand random(seed);
    random.discard(3);
    const int64_t blocks = 4 + static_cast<int64_t>(random() % 12);
    KvBlockAllocator allocator(1 + static_cast<int>(random() % 4), blocks);
    std::vector<Sequence> sequences = RandomSequences(allocator, random);
    for (int resize = 0; resize < 5; ++resize) {
      const int before = allocator.cp(), cp = 1 + static_cast<int>(random() % 4);
      const int64_t held = HeldBlocks(sequences, before);
      allocator.GrowPlaces(std::max(before, cp));
      std::vector<BlockMove> moves;
      std::vector<Sequence> moved = sequences;
      const bool fits = PlanMoves(allocator, cp, moved, moves);
      ASSERT_OK(allocator.Redeal(fits ? cp : before, moves));
      if (fits) sequences = moved;
      made += fits;
      ASSERT_EQ(HeldBlocks(sequences, allocator.cp()), held);
      ASSERT_EQ(allocator.free_blocks(), allocator.total_blocks() - held);
    }
    for (const Sequence& sequence : sequences) ASSERT_OK(allocator.Free(sequence.blocks));
    ASSERT_EQ(allocator.free_blocks(), allocator.total_blocks());
  }
  EXPECT_GT(made, 500);
}

}  // namespace
}  // namespace muster
