#include "kernels/embedding.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/kernel_test_support.h"

namespace muster {
namespace {

using ::muster::testing::AllSame;
using ::muster::testing::ForEachTarget;
using ::muster::testing::RandomFloats;
using ::muster::testing::TestArray;
using ::muster::testing::TypedArray;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

TEST(EmbeddingTest, MatchesReferenceForEveryTypeAndSize) {
  ForEachTarget([] {
    std::vector<int32_t> ids{5, -1, 10, 14, 15, 4, 2147483647, 9};
    for (const DType dtype : kDTypes) {
      for (const size_t hidden : {1, 7, 16, 31, 576}) {
        for (const size_t misalignment : {0, 1, 3}) {
          SCOPED_TRACE(::testing::Message() << Name(dtype) << " x " << hidden);
          RandomFloats random(1);
          TypedArray table(dtype, 10 * hidden, misalignment);
          random.Fill(table);
          TestArray<float> expected(ids.size() * hidden);
          TestArray<float> actual(ids.size() * hidden, misalignment);
          EmbeddingParams params{
              ids.data(),     table.data(), dtype, 5, 15, static_cast<int64_t>(hidden),
              expected.data()};
          EmbeddingReference(params, {0, 8});
          params.out = actual.data();
          EmbeddingCpu(params, {0, 3});
          EmbeddingCpu(params, {3, 8});
          EXPECT_TRUE(AllSame(expected.data(), actual.data(), actual.size()));
        }
      }
    }
  });
}

TEST(EmbeddingTest, ShardsAddUpToTheWholeTable) {
  const std::vector<int32_t> ids{0, 3, 4, 9, -1};
  TypedArray table(DType::kBFloat16, 10 * 8);
  RandomFloats(2).Fill(table);
  const auto embed = [&](int64_t begin, int64_t end) {
    TestArray<float> out(5 * 8);
    const void* shard = static_cast<std::byte*>(table.data()) + begin * 8 * 2;
    EmbeddingCpu({ids.data(), shard, DType::kBFloat16, begin, end, 8, out.data()}, {0, 5});
    return out;
  };
  const TestArray<float> whole = embed(0, 10);
  const TestArray<float> low = embed(0, 4);
  const TestArray<float> high = embed(4, 10);
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(low[i] + high[i], whole[i]);
}

}  // namespace
}  // namespace muster
