#include "worker/cache/block_allocator.h"

#include <gtest/gtest.h>

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

  bool Fits(int64_t from, int64_t to) const {
    std::map<int64_t, int64_t> needed;
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
    return block.local >= 0 && block.local < blocks_ &&
           used_.insert({block.logical % cp_, block.local}).second;
  }
  void Give(const BlockGrant& block) { used_.erase({block.logical % cp_, block.local}); }
  int64_t Used(int64_t rank) const {
    int64_t count = 0;
    for (const auto& [owner, id] : used_) count += owner == rank;
    return count;
  }

 private:
  int cp_;
  int64_t blocks_;
  std::set<std::pair<int64_t, int32_t>> used_;
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

TEST(KvBlockAllocatorTest, AgreesWithANaiveOneOverRandomLives) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::minstd_rand random(seed);
    const int cp = 1 + static_cast<int>(random() % 4);
    const int64_t blocks = 1 + static_cast<int64_t>(random() % 12);
    KvBlockAllocator allocator(cp, blocks);
    NaiveAllocator naive(cp, blocks);
    std::vector<Sequence> sequences(5);
    for (int step = 0; step < 300; ++step) {
      Sequence& sequence = sequences[random() % sequences.size()];
      if (random() % 4 == 0) {
        ASSERT_OK(allocator.Free(sequence.blocks));
        for (const BlockGrant& block : sequence.blocks) naive.Give(block);
        sequence = Sequence();
      }
      const int64_t to = sequence.tokens + static_cast<int64_t>(random() % 100);
      const bool fits = naive.Fits(sequence.tokens, to);
      const auto granted = allocator.Allocate({{.from = sequence.tokens, .to = to}});
      ASSERT_EQ(granted.ok(), fits) << granted.status();
      if (!fits) continue;
      sequence.tokens = to;
      for (const BlockGrant& block : granted->front()) {
        ASSERT_TRUE(naive.Take(block));
        sequence.blocks.push_back(block);
      }
      ExpectWhole(sequence);
      for (int rank = 0; rank < cp; ++rank) {
        ASSERT_EQ(allocator.free_blocks(rank), blocks - naive.Used(rank));
      }
      ASSERT_TRUE(naive.Fits(0, allocator.LargestAdmissible()));
      ASSERT_FALSE(naive.Fits(0, allocator.LargestAdmissible() + 1));
    }
  }
}

}  // namespace
}  // namespace muster
