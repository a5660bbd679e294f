#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/kernel_test_support.h"
#include "kernels/lse_merge.h"
#include "kernels/paged_attention.h"
#include "kernels/paged_attention_cuda_test_support.h"

namespace muster {
namespace {

using ::muster::testing::AllClose;
using ::muster::testing::AllSame;
using ::muster::testing::Cache;
using ::muster::testing::FreshSeed;
using ::muster::testing::kEpsilon;
using ::muster::testing::kInfinity;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;
using ::muster::testing::Results;
using ::muster::testing::RowRun;
using ::muster::testing::Shape;
using ::muster::testing::Step;

// Relative error of one rounding to nearest.
double UnitRoundoff(DType dtype) {
  return dtype == DType::kFloat32 ? 0x1p-24 : dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}

int64_t LongestContext(const std::vector<RowRun>& runs) {
  int64_t longest = 1;
  for (const RowRun& run : runs)
    longest = std::max<int64_t>(longest, int64_t{run.first} + run.count);
  return longest;
}

// Scores sum head_dim products, at most `queries` * 2 each, in pieces of at least 8 elements, and
// are scaled; taking the maximum away and the factor for base 2 cost three roundings more.
double ScoreError(const Shape& shape) {
  const double largest = 2.0 * shape.queries * std::sqrt(double(shape.head_dim));
  return (shape.head_dim / 8.0 + 12) * kEpsilon * largest;
}
// Weights inherit the scores' error relatively and are rounded to the KV's type; so is the result.
// |values| <= 2, of which they are a mean.
double OutTolerance(const Shape& shape, const std::vector<RowRun>& runs, double out) {
  const double summing = (static_cast<double>(LongestContext(runs)) / 8 + 16) * kEpsilon;
  const bool plain = shape.activation == DType::kFloat32 || shape.dtype != shape.activation;
  const double weights = plain ? 0 : UnitRoundoff(shape.dtype);
  const double subnormal = plain ? 0 : static_cast<double>(LongestContext(runs)) * 0x1p-25;
  return 2 * (2 * ScoreError(shape) + summing + weights + subnormal) +
         std::abs(out) * UnitRoundoff(shape.activation);
}

void ExpectClose(const Shape& shape, const std::vector<RowRun>& runs, const Results& expected,
                 const Results& actual) {
  EXPECT_TRUE(AllClose(expected.out.data(), actual.out.data(), expected.out.size(),
                       [&](size_t i) { return OutTolerance(shape, runs, expected.out[i]); }));
  EXPECT_TRUE(AllClose(expected.lse.data(), actual.lse.data(), expected.lse.size(), [&](size_t i) {
    return ScoreError(shape) +
           (LongestContext(runs) / 8.0 + 16 + std::abs(expected.lse[i])) * kEpsilon;
  }));
}

std::string Describe(const Shape& shape, uint32_t seed) {
  return (::testing::Message() << "heads " << shape.heads << "/" << shape.kv_heads << " x "
                               << shape.head_dim << ", block " << shape.block_size << ", KV "
                               << Name(shape.dtype) << ", activation " << Name(shape.activation)
                               << ", cp " << shape.ownership.rank << "/" << shape.ownership.size
                               << ", window " << shape.window << ", queries " << shape.queries
                               << ", misalignment " << shape.misalignment << ", seed " << seed)
      .GetString();
}

void Check(const Shape& shape, const std::vector<RowRun>& runs) {
  if (::testing::Test::HasFailure()) return;  // what failed first is what to look at
  const uint32_t seed = FreshSeed();
  SCOPED_TRACE(Describe(shape, seed));
  const Cache cache(shape, runs, seed);
  const Step step(shape, cache, runs, seed + 1);
  ExpectClose(shape, runs, step.Reference(), step.OnDevice());
}

// Decoding, of short and long contexts, with padding and a short run.
const std::vector<RowRun> kDecode = {{0, 99, 1}, {1, 0, 1},  {-1, 77, 1}, {2, 300, 1},
                                     {3, 20, 5}, {4, 15, 1}, {5, 16, 1},  {-1, 12345, 2}};
// Chunks with and without a history, decode rows before, between and behind them, and padding.
const std::vector<RowRun> kMixed = {{0, 130, 1}, {1, 0, 40},  {2, 57, 8},   {3, 100, 9},
                                    {4, 17, 90}, {5, 250, 1}, {-1, 999, 3}, {6, 0, 3},
                                    {7, 33, 70}, {-1, 5, 40}};

void CheckBoth(const Shape& shape) {
  Check(shape, kDecode);
  Check(shape, kMixed);
}

TEST(PagedAttentionCudaTest, MatchesReferenceForEveryHeadDim) {
  for (const int32_t head_dim : {64, 128, 256, 80, 96, 8, 24, 72, 112, 200, 1, 7, 33}) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
      CheckBoth({.head_dim = head_dim, .dtype = dtype, .activation = dtype});
    }
  }
}

TEST(PagedAttentionCudaTest, MatchesReferenceForEveryPairOfTypes) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    for (const DType activation : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
      CheckBoth({.dtype = dtype, .activation = activation});
    }
  }
}

TEST(PagedAttentionCudaTest, MatchesReferenceForEveryGroupOfHeads) {
  for (const int32_t group : {1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 33}) {
    CheckBoth({.heads = 2 * group, .head_dim = 128});
  }
}

TEST(PagedAttentionCudaTest, MatchesReferenceForEveryBlockSize) {
  for (const int32_t block_size : {8, 16, 24, 32, 64, 128, 1, 5, 20}) {
    CheckBoth({.block_size = block_size});
  }
}

TEST(PagedAttentionCudaTest, MatchesReferenceForPeakedScores) {
  for (const float queries : {8.0f, 100.0f}) {
    for (const int32_t head_dim : {64, 128, 256}) {
      CheckBoth({.heads = 6, .head_dim = head_dim, .queries = queries});
      CheckBoth({.heads = 6,
                 .head_dim = head_dim,
                 .dtype = DType::kFloat16,
                 .activation = DType::kFloat16,
                 .queries = queries,
                 .scale_sign = -1});
    }
  }
}

TEST(PagedAttentionCudaTest, AttendsToOwnedBlocksOnly) {
  for (const int32_t size : {1, 2, 3, 4}) {
    for (int32_t rank = 0; rank < size; ++rank) {
      CheckBoth({.head_dim = 128, .ownership = {rank, size}});
      CheckBoth({.block_size = 8, .ownership = {rank, size}, .window = 50});
      CheckBoth({.block_size = 32, .ownership = {rank, size}});
    }
  }
}

TEST(PagedAttentionCudaTest, MatchesReferenceForEveryWindow) {
  for (const int64_t window : {1, 2, 15, 16, 17, 31, 33, 99, 100, 150, 1000}) {
    CheckBoth({.window = window});
    CheckBoth({.head_dim = 128, .block_size = 32, .ownership = {1, 3}, .window = window});
    CheckBoth({.heads = 14, .head_dim = 256, .block_size = 8, .window = window});
  }
}

TEST(PagedAttentionCudaTest, ReadsAndWritesAtAnyAlignment) {
  for (const int64_t misalignment : {1, 2, 4, 8}) {
    for (const int32_t head_dim : {64, 80, 128}) {
      CheckBoth({.head_dim = head_dim, .misalignment = misalignment});
    }
  }
}

TEST(PagedAttentionCudaTest, UnmappedBlocksHoldNoKeys) {
  for (const int percent : {10, 50, 100}) {
    for (const int32_t head_dim : {64, 128}) {
      CheckBoth({.head_dim = head_dim, .unmapped_percent = percent});
      CheckBoth({.head_dim = head_dim,
                 .block_size = 8,
                 .ownership = {0, 2},
                 .window = 40,
                 .unmapped_percent = percent});
    }
  }
}

TEST(PagedAttentionCudaTest, LongContexts) {
  const Shape shape{.heads = 8, .kv_heads = 2, .head_dim = 128};
  Check(shape, {{0, 9000, 1}});
  Check(shape, {{0, 5000, 1}, {1, 100, 1}, {2, 2000, 1}, {3, 0, 1}});
  Check({.heads = 8, .kv_heads = 2, .head_dim = 128, .ownership = {2, 3}}, {{0, 5000, 1}});
  Check({.heads = 8, .kv_heads = 2, .queries = 20}, {{0, 3000, 1}, {1, 1500, 100}});
  Check(shape, {{0, 2500, 1}, {1, 0, 700}, {2, 4000, 1}, {3, 1200, 130}});
}

TEST(PagedAttentionCudaTest, ManyDecodeRows) {
  std::vector<RowRun> runs;
  RandomFloats random(FreshSeed());
  for (int32_t sequence = 0; sequence < 300; ++sequence) {
    runs.push_back({sequence, int32_t(random.Integer(0, sequence % 50 == 0 ? 3000 : 60)), 1});
  }
  Check({.heads = 2, .kv_heads = 1}, runs);
}

TEST(PagedAttentionCudaTest, MoreRowsThanOneWindowOfThePlan) {
  std::vector<RowRun> runs;
  RandomFloats random(FreshSeed());
  for (int32_t sequence = 0; sequence < 60; ++sequence) {
    runs.push_back({sequence, int32_t(random.Integer(0, 40)), int32_t(random.Integer(1, 90))});
    if (sequence % 7 == 0) runs.push_back({-1, 0, int32_t(random.Integer(1, 9))});
  }
  Check({.heads = 3, .kv_heads = 1}, runs);
}

TEST(PagedAttentionCudaTest, CacheThatDoesNotExistYetHoldsNoKeys) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    for (const auto& runs : {kDecode, kMixed}) {
      const Shape shape{.dtype = dtype, .activation = dtype};
      Cache cache(shape, runs, 1);
      cache.RemoveArena();
      const Results results = Step(shape, cache, runs, 2).OnDevice();
      for (const float out : results.out) ASSERT_EQ(out, 0.0f);
      for (const float lse : results.lse) ASSERT_EQ(lse, -kInfinity);
    }
  }
}

// A position beyond the block table sees the table's keys, all of which are written.
TEST(PagedAttentionCudaTest, HugePositions) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    for (const int32_t count : {1, 40}) {
      const Shape shape{.dtype = dtype, .activation = dtype};
      const std::vector<RowRun> runs = {{0, 160 - count, count}};
      const Cache cache(shape, runs, FreshSeed());
      Step step(shape, cache, runs, FreshSeed());
      for (int32_t& position : step.positions()) position = 159;
      const Results expected = step.Reference();
      for (int32_t& position : step.positions()) position = std::numeric_limits<int32_t>::max();
      ExpectClose(shape, runs, expected, step.OnDevice());
    }
  }
}

TEST(PagedAttentionCudaTest, BitsAreTheSameFromRunToRun) {
  const Shape shape{.heads = 8, .kv_heads = 2, .head_dim = 128};
  const std::vector<RowRun> decode = {{0, 4000, 1}, {1, 700, 1}, {2, 90, 1}};
  const std::vector<RowRun> mixed = {{0, 4000, 1}, {1, 700, 200}, {2, 90, 3}, {3, 0, 333}};
  for (const auto& runs : {decode, mixed}) {
    const Cache cache(shape, runs, FreshSeed());
    const Step step(shape, cache, runs, FreshSeed());
    const Results once = step.OnDevice();
    const Results often = step.OnDevice(/*times=*/5);
    EXPECT_TRUE(AllSame(once.out.data(), often.out.data(), once.out.size()));
    EXPECT_TRUE(AllSame(once.lse.data(), often.lse.data(), once.lse.size()));
  }
}

TEST(PagedAttentionCudaTest, GraphsReplay) {
  const Shape shape{.heads = 8, .kv_heads = 2, .head_dim = 128};
  for (const auto& runs : {kDecode, kMixed}) {
    const Cache cache(shape, runs, FreshSeed());
    const Step step(shape, cache, runs, FreshSeed());
    const Results once = step.OnDevice();
    const Results replayed = step.AsGraph();
    EXPECT_TRUE(AllSame(once.out.data(), replayed.out.data(), once.out.size()));
    EXPECT_TRUE(AllSame(once.lse.data(), replayed.lse.data(), once.lse.size()));
  }
}

TEST(PagedAttentionCudaTest, NaNInAQueryStaysInItsHead) {
  for (const auto& runs : {std::vector<RowRun>{{0, 50, 2}}, std::vector<RowRun>{{0, 50, 40}}}) {
    const Shape shape;
    const Cache cache(shape, runs, FreshSeed());
    Step step(shape, cache, runs, FreshSeed());
    step.q().Set(0, kNaN);
    const Results results = step.OnDevice();
    EXPECT_TRUE(std::isnan(results.out[0]) && std::isnan(results.lse[0]));
    for (size_t i = 64; i < results.out.size(); ++i) ASSERT_FALSE(std::isnan(results.out[i])) << i;
  }
}

TEST(PagedAttentionCudaTest, LaterKeysDoNotTouchADecodeRow) {
  const Shape shape;
  const std::vector<RowRun> runs = {{0, 20, 3}};
  Cache cache(shape, runs, FreshSeed());
  const Step step(shape, cache, runs, 3);
  const Results before = step.OnDevice();
  cache.Set(0, 22, kInfinity, kInfinity);
  const Results after = step.OnDevice();
  const size_t two_rows = 2 * size_t(shape.heads * shape.head_dim);
  EXPECT_TRUE(AllSame(before.out.data(), after.out.data(), two_rows));
  EXPECT_TRUE(std::isnan(after.out[two_rows]));
}

// The ranks' partial results, merged, are the result of one rank that holds all keys.
TEST(PagedAttentionCudaTest, RanksMergeToTheWhole) {
  for (const int32_t size : {2, 3, 4}) {
    for (const auto& runs : {kDecode, kMixed}) {
      Shape shape{.heads = 8, .kv_heads = 2, .head_dim = 128};
      const uint32_t seed = FreshSeed();
      const Cache whole_cache(shape, runs, seed);
      const Step whole(shape, whole_cache, runs, seed);
      const Results expected = whole.Reference();
      std::vector<Results> parts;
      for (int32_t rank = 0; rank < size; ++rank) {
        shape.ownership = {rank, size};
        const Cache cache(shape, runs, seed);
        parts.push_back(Step(shape, cache, runs, seed).OnDevice());
      }
      LseMergeParams merge{};
      const int64_t width = int64_t{shape.heads} * shape.head_dim;
      std::vector<float> merged(expected.out.size());
      merge.part_row_stride = width;
      merge.lse_row_stride = shape.heads;
      merge.world = size;
      merge.head_dim = shape.head_dim;
      merge.columns = {0, width};
      merge.out = merged.data();
      merge.out_row_stride = width;
      for (size_t rank = 0; rank < parts.size(); ++rank) {
        merge.parts[rank] = parts[rank].out.data();
        merge.lse[rank] = parts[rank].lse.data();
      }
      LseMergeReference(merge, {0, whole.rows()});
      EXPECT_TRUE(AllClose(expected.out.data(), merged.data(), merged.size(), [&](size_t i) {
        return OutTolerance(shape, runs, expected.out[i]) + 2 * UnitRoundoff(shape.activation);
      }));
    }
  }
}

}  // namespace
}  // namespace muster
