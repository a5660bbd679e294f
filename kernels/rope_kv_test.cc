#include "kernels/rope_kv.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/kernel_test_support.h"

namespace muster {
namespace {

using ::muster::testing::AllClose;
using ::muster::testing::AllSame;
using ::muster::testing::ForEachTarget;
using ::muster::testing::kEpsilon;
using ::muster::testing::RandomFloats;
using ::muster::testing::TestArray;
using ::muster::testing::TypedArray;

constexpr int32_t kLayers = 2;
constexpr int64_t kMaxPosition = 64;
constexpr int64_t kMaxLocalBlocks = 16;
constexpr int64_t kNumBlocks = 40;

struct Shape {
  int32_t heads = 3;
  int32_t kv_heads = 2;
  int32_t head_dim = 16;
  int32_t block_size = 4;
  DType dtype = DType::kBFloat16;
  KvOwnership ownership = {0, 1};
  bool norms = false;  // of the heads of q and k
};

// Two sequences, one padded row, positions in and out of order.
const std::vector<int32_t> kPositions{0, 1, 2, 3, 4, 63, 999, 17, 5};
const std::vector<int32_t> kSequences{0, 0, 0, 0, 0, 1, -1, 1, 0};
constexpr int64_t kRows = 9;

struct Fixture {
  explicit Fixture(const Shape& shape)
      : layout{kLayers, shape.kv_heads, shape.block_size, shape.head_dim, shape.dtype},
        stride((shape.heads + 2 * shape.kv_heads) * shape.head_dim + 3),
        qkv(static_cast<size_t>(kRows * stride), 1),
        cos(static_cast<size_t>(kMaxPosition * shape.head_dim / 2), 1),
        sin(static_cast<size_t>(kMaxPosition * shape.head_dim / 2), 2),
        q_norm(static_cast<size_t>(shape.head_dim), 1),
        k_norm(static_cast<size_t>(shape.head_dim), 2),
        arena(shape.dtype,
              static_cast<size_t>(kNumBlocks * KvBlockBytes(layout)) / SizeOf(shape.dtype), 1),
        tables(2 * kMaxLocalBlocks) {
    RandomFloats random(3);
    random.Fill(qkv);
    for (size_t i = 0; i < cos.size(); ++i) {
      const float angle = random.Uniform(0, 6.28f);
      cos[i] = std::cos(angle);
      sin[i] = std::sin(angle);
    }
    random.Fill(q_norm);
    random.Fill(k_norm);
    for (size_t i = 0; i < tables.size(); ++i) tables[i] = static_cast<int32_t>((i * 7 + 3) % 40);
    descriptor = {arena.data(), kNumBlocks, tables.data(), kMaxLocalBlocks};
    params = {qkv.data(),
              stride,
              shape.heads,
              kPositions.data(),
              kSequences.data(),
              cos.data(),
              sin.data(),
              &descriptor,
              layout,
              shape.ownership,
              1};
    if (shape.norms) {
      params.q_norm = q_norm.data();
      params.k_norm = k_norm.data();
      params.norm_eps = 1e-5f;
    }
  }

  TestArray<float> Cache() const {
    TestArray<float> floats(arena.size());
    for (size_t i = 0; i < arena.size(); ++i) floats[i] = arena.Get(i);
    return floats;
  }

  KvLayout layout;
  int64_t stride;
  TestArray<float> qkv;
  TestArray<float> cos;
  TestArray<float> sin;
  TestArray<float> q_norm;
  TestArray<float> k_norm;
  TypedArray arena;
  std::vector<int32_t> tables;
  KvDescriptor descriptor;
  RopeKvParams params;
};

// Two products of at most 1 and their sum, each rounded once. A norm brings an element to at most
// sqrt(head_dim), with the relative error of a sum of head_dim squares, a root and three products.
double Tolerance(const Shape& shape) {
  if (!shape.norms) return 2 * kEpsilon;
  return (0.5 * shape.head_dim + 8) * kEpsilon * std::sqrt(shape.head_dim);
}

void ExpectMatchesReference(const Shape& shape) {
  SCOPED_TRACE(::testing::Message()
               << "head_dim " << shape.head_dim << ", " << Name(shape.dtype) << ", block "
               << shape.block_size << ", cp " << shape.ownership.rank << "/" << shape.ownership.size
               << (shape.norms ? ", normalised" : ""));
  Fixture expected(shape);
  Fixture actual(shape);
  RopeKvReference(expected.params, {0, kRows});
  RopeKvCpu(actual.params, {0, 4});
  RopeKvCpu(actual.params, {4, kRows});
  const double tolerance = Tolerance(shape);
  EXPECT_TRUE(AllClose(expected.qkv.data(), actual.qkv.data(), actual.qkv.size(),
                       [&](size_t) { return tolerance; }));
  // The cache holds what the row holds, rounded: at most one step of the type apart.
  const double step = shape.dtype == DType::kFloat32   ? tolerance
                      : shape.dtype == DType::kFloat16 ? 0x1p-10
                                                       : 0x1p-7;
  const TestArray<float> wanted = expected.Cache();
  const TestArray<float> held = actual.Cache();
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (std::isnan(wanted[i])) {
      ASSERT_TRUE(std::isnan(held[i])) << "written where nothing is due, at " << i;
    } else {
      ASSERT_NEAR(held[i], wanted[i], step) << i;
    }
  }
}

TEST(RopeKvTest, MatchesReferenceForEveryShapeAndType) {
  ForEachTarget([] {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      for (const int32_t head_dim : {2, 6, 16, 64, 66, 80}) {
        ExpectMatchesReference({.head_dim = head_dim, .dtype = dtype});
      }
      for (const int32_t block_size : {5, 16, 64}) {
        ExpectMatchesReference({.block_size = block_size, .dtype = dtype});
      }
    }
  });
}

TEST(RopeKvTest, MatchesReferenceWhereHeadsAreNormalised) {
  ForEachTarget([] {
    for (const int32_t head_dim : {2, 6, 16, 64, 66, 80}) {
      ExpectMatchesReference({.head_dim = head_dim, .dtype = DType::kFloat32, .norms = true});
    }
  });
}

TEST(RopeKvTest, QueriesAndKeysAreNormalisedEachByItsOwnWeightAndValuesNotAtAll) {
  ForEachTarget([] {
    const Shape shape{.dtype = DType::kFloat32, .norms = true};
    Fixture plain({.dtype = DType::kFloat32});
    Fixture fixture(shape);
    std::fill(fixture.q_norm.begin(), fixture.q_norm.end(), 1.0f);
    std::fill(fixture.k_norm.begin(), fixture.k_norm.end(), 3.0f);
    RopeKvCpu(plain.params, {0, kRows});
    RopeKvCpu(fixture.params, {0, kRows});
    // A rotation keeps the root mean square.
    for (int32_t head = 0; head < shape.heads + 2 * shape.kv_heads; ++head) {
      const float* x = fixture.qkv.data() + head * shape.head_dim;
      if (head >= shape.heads + shape.kv_heads) {
        EXPECT_TRUE(AllSame(plain.qkv.data() + head * shape.head_dim, x, 16)) << head;
        continue;
      }
      double squares = 0;
      for (int32_t i = 0; i < shape.head_dim; ++i) squares += double{x[i]} * x[i];
      EXPECT_NEAR(std::sqrt(squares / shape.head_dim), head < shape.heads ? 1 : 3, 1e-3) << head;
    }
  });
}

TEST(RopeKvTest, EachBlockIsWrittenByItsOwnerOnly) {
  ForEachTarget([] {
    for (const int32_t size : {2, 3, 4}) {
      for (int32_t rank = 0; rank < size; ++rank) {
        ExpectMatchesReference({.ownership = {rank, size}});
      }
    }
  });
}

TEST(RopeKvTest, CacheHoldsTheRotatedKeyAndThePlainValue) {
  ForEachTarget([] {
    const Shape shape{.dtype = DType::kFloat32};
    Fixture fixture(shape);
    const int64_t values = 2 * fixture.stride + (3 + 2 + 1) * 16;  // row 2, KV head 1
    const std::vector<float> value(fixture.qkv.data() + values, fixture.qkv.data() + values + 16);
    RopeKvCpu(fixture.params, {0, kRows});
    const std::byte* block = KvBlock(fixture.descriptor, fixture.layout, 0, 0);
    const auto page = [&](KvPart part) {
      return reinterpret_cast<const float*>(block + KvPageOffset(fixture.layout, 1, part, 1)) +
             2 * 16;  // slot 2
    };
    EXPECT_TRUE(AllSame(value.data(), page(KvPart::kValue), 16));
    EXPECT_TRUE(
        AllSame(fixture.qkv.data() + 2 * fixture.stride + (3 + 1) * 16, page(KvPart::kKey), 16));
  });
}

TEST(RopeKvTest, PaddedRowsAreLeftAlone) {
  ForEachTarget([] {
    Fixture before{Shape{}};
    Fixture after{Shape{}};
    RopeKvCpu(after.params, {0, kRows});
    const size_t padded = static_cast<size_t>(6 * after.stride);
    EXPECT_TRUE(AllSame(&before.qkv[padded], &after.qkv[padded], size_t(after.stride)));
  });
}

TEST(RopeKvTest, WithoutAnArenaOnlyRotates) {
  Fixture with{Shape{}};
  Fixture without{Shape{}};
  without.descriptor = {};
  RopeKvCpu(with.params, {0, kRows});
  RopeKvCpu(without.params, {0, kRows});
  EXPECT_TRUE(AllSame(with.qkv.data(), without.qkv.data(), with.qkv.size()));
}

TEST(RopeKvTest, TableEntriesThatAreNoBlockAreNotWritten) {
  Fixture fixture{Shape{}};
  std::fill(fixture.tables.begin(), fixture.tables.end(), -1);
  fixture.tables[0] = kNumBlocks;
  RopeKvCpu(fixture.params, {0, kRows});
  for (const float x : fixture.Cache()) EXPECT_TRUE(std::isnan(x));
}

}  // namespace
}  // namespace muster
