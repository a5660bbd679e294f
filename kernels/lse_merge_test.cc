#include "kernels/lse_merge.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/kernel_test_support.h"

namespace muster {
namespace {

using ::muster::testing::AllClose;
using ::muster::testing::AllSame;
using ::muster::testing::ForEachTarget;
using ::muster::testing::kEpsilon;
using ::muster::testing::kInfinity;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;
using ::muster::testing::TestArray;

constexpr int64_t kRows = 4;
constexpr int64_t kHeads = 3;

// What the peers of a group computed.
struct Peers {
  Peers(int world, int64_t head_dim, float lse_low, float lse_high, size_t misalignment = 0)
      : world(world), head_dim(head_dim) {
    RandomFloats random(static_cast<uint32_t>(world * 1000 + head_dim));
    for (int peer = 0; peer < world; ++peer) {
      parts.emplace_back(static_cast<size_t>(kRows * (Width() + 1)), misalignment);
      lse.emplace_back(static_cast<size_t>(kRows * (kHeads + 2)), misalignment);
      random.Fill(parts.back());
      random.Fill(lse.back(), lse_low, lse_high);
    }
  }

  int64_t Width() const { return kHeads * head_dim; }

  LseMergeParams Params(IndexRange columns, TestArray<float>& out) const {
    LseMergeParams params{};
    for (size_t peer = 0; peer < parts.size(); ++peer) {
      params.parts[peer] = parts[peer].data();
      params.lse[peer] = lse[peer].data();
    }
    params.part_row_stride = Width() + 1;
    params.part_column = 0;
    params.lse_row_stride = kHeads + 2;
    params.world = world;
    params.head_dim = head_dim;
    params.columns = columns;
    params.out = out.data();
    params.out_row_stride = columns.end - columns.begin;
    return params;
  }

  int world;
  int64_t head_dim;
  std::vector<TestArray<float>> parts;
  std::vector<TestArray<float>> lse;
};

TestArray<float> Room(IndexRange columns, size_t misalignment = 0) {
  return TestArray<float>(static_cast<size_t>(kRows * (columns.end - columns.begin)), misalignment);
}

// |parts| <= 1 and the weights add up to 1; each is wrong by the roundings of lse - max (relative
// to the difference), of exp and of the quotient, and each product and sum rounds again.
double Tolerance(int world, double lse_spread) { return (2 * lse_spread + 4 + world) * kEpsilon; }

void ExpectMatchesReference(const Peers& peers, IndexRange columns, double lse_spread) {
  SCOPED_TRACE(::testing::Message() << peers.world << " peers, head_dim " << peers.head_dim
                                    << ", columns " << columns.begin << ".." << columns.end);
  TestArray<float> expected = Room(columns);
  TestArray<float> actual = Room(columns, 1);
  LseMergeReference(peers.Params(columns, expected), {0, kRows});
  LseMergeCpu(peers.Params(columns, actual), {0, kRows});
  EXPECT_TRUE(AllClose(expected.data(), actual.data(), expected.size(),
                       [&](size_t) { return Tolerance(peers.world, lse_spread); }));
}

TEST(LseMergeTest, MatchesReferenceForEveryWorldAndSlice) {
  ForEachTarget([] {
    for (int world = 1; world <= kMaxMergePeers; ++world) {
      for (const int64_t head_dim : {1, 8, 33, 64}) {
        const Peers peers(world, head_dim, -3, 12, static_cast<size_t>(world % 2));
        ExpectMatchesReference(peers, {0, peers.Width()}, 15);
        ExpectMatchesReference(peers, {head_dim / 2, peers.Width() - head_dim / 3}, 15);
        ExpectMatchesReference(peers, {peers.Width() - 1, peers.Width()}, 15);
      }
    }
  });
}

TEST(LseMergeTest, SlicesOfARowAreTheRow) {
  ForEachTarget([] {
    const Peers peers(3, 24, -1, 1);
    TestArray<float> whole = Room({0, 72});
    LseMergeCpu(peers.Params({0, 72}, whole), {0, kRows});
    for (const int64_t cut : {1, 18, 24, 71}) {
      TestArray<float> low = Room({0, cut});
      TestArray<float> high = Room({cut, 72});
      LseMergeCpu(peers.Params({0, cut}, low), {0, kRows});
      LseMergeCpu(peers.Params({cut, 72}, high), {0, kRows});
      for (int64_t row = 0; row < kRows; ++row) {
        EXPECT_TRUE(AllSame(&whole[size_t(row * 72)], &low[size_t(row * cut)], size_t(cut)));
        EXPECT_TRUE(AllSame(&whole[size_t(row * 72 + cut)], &high[size_t(row * (72 - cut))],
                            size_t(72 - cut)));
      }
    }
  });
}

TEST(LseMergeTest, PartsThatHoldTheSliceOnlyGiveTheSame) {
  ForEachTarget([] {
    const Peers peers(2, 16, -1, 1);
    const IndexRange columns{10, 30};
    TestArray<float> expected = Room(columns);
    LseMergeCpu(peers.Params(columns, expected), {0, kRows});
    TestArray<float> actual = Room(columns);
    LseMergeParams params = peers.Params(columns, actual);
    params.part_column = 10;
    for (int peer = 0; peer < 2; ++peer) {
      params.parts[peer] = static_cast<const float*>(params.parts[peer]) + 10;
    }
    LseMergeCpu(params, {0, kRows});
    EXPECT_TRUE(AllSame(expected.data(), actual.data(), actual.size()));
  });
}

TEST(LseMergeTest, PeerWithoutKeysIsLeftOutWhateverItHolds) {
  ForEachTarget([] {
    Peers peers(3, 16, -1, 1);
    for (float& x : peers.parts[1]) x = kNaN;
    for (float& x : peers.lse[1]) x = -kInfinity;
    ExpectMatchesReference(peers, {0, 48}, 2);
    // A lone peer's output is passed on bit by bit.
    for (float& x : peers.lse[0]) x = -kInfinity;
    TestArray<float> out = Room({0, 48});
    LseMergeCpu(peers.Params({0, 48}, out), {0, kRows});
    for (int64_t row = 0; row < kRows; ++row) {
      EXPECT_TRUE(AllSame(&peers.parts[2][size_t(row * 49)], &out[size_t(row * 48)], 48));
    }
  });
}

TEST(LseMergeTest, WithoutAnyKeysTheResultIsZero) {
  ForEachTarget([] {
    Peers peers(2, 16, -1, 1);
    for (auto& lse : peers.lse) std::fill(lse.begin(), lse.end(), -kInfinity);
    TestArray<float> out = Room({3, 40});
    LseMergeCpu(peers.Params({3, 40}, out), {0, kRows});
    for (const float x : out) EXPECT_EQ(x, 0.0f);
  });
}

TEST(LseMergeTest, LargeLseDoNotOverflowAndNaNShows) {
  ForEachTarget([] {
    Peers peers(4, 8, -3e4f, 3e4f);
    ExpectMatchesReference(peers, {0, 24}, 6e4);
    peers.lse[2][0] = kNaN;
    TestArray<float> out = Room({0, 24});
    LseMergeCpu(peers.Params({0, 24}, out), {0, kRows});
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i < 8) << i;
  });
}

}  // namespace
}  // namespace muster
