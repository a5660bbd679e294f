#include <gtest/gtest.h>

#include <vector>

#include "kernels/elementwise_cuda_test_support.h"
#include "kernels/embedding.h"

namespace muster {
namespace {

using ::muster::testing::AllSame;
using ::muster::testing::CudaFinish;
using ::muster::testing::DeviceBytes;
using ::muster::testing::FillWithSpecials;
using ::muster::testing::FreshSeed;
using ::muster::testing::kDTypes;
using ::muster::testing::RandomFloats;
using ::muster::testing::ToDevice;
using ::muster::testing::TypedArray;

const std::vector<int32_t> kIds{5, -1, 10, 14, 15, 4, 2147483647, 9};
constexpr int64_t kRows = 8;

void ExpectReference(DType dtype, DType activation, size_t hidden, size_t misalignment,
                     uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << Name(dtype) << " to " << Name(activation) << " x " << hidden
                                    << " off by " << misalignment << ", seed " << seed);
  RandomFloats random(seed);
  TypedArray table(dtype, 10 * hidden);
  FillWithSpecials(random, table, 1);
  TypedArray expected(activation, kRows * hidden);
  EmbeddingParams params{kIds.data(),     table.data(), dtype, 5, 15, static_cast<int64_t>(hidden),
                         expected.data(), activation};
  EmbeddingReference(params, {0, kRows});

  const DeviceBytes ids = ToDevice(kIds);
  const DeviceBytes device_table = ToDevice(table, misalignment);
  const DeviceBytes out(expected.size() * SizeOf(activation), misalignment * SizeOf(activation));
  params.ids = ids.as<int32_t>();
  params.table = device_table.data();
  params.out = out.data();
  CudaFinish(EmbeddingCuda(params, kRows, nullptr));
  EXPECT_TRUE(AllSame(expected, out));
}

TEST(EmbeddingCudaTest, HasTheBitsOfTheReferenceForEveryTypeAndSize) {
  const uint32_t seed = FreshSeed();
  for (const DType dtype : kDTypes) {
    for (const DType activation : kDTypes) {
      for (const size_t hidden : {1, 7, 8, 31, 576, 1032, 4096}) {
        for (const size_t misalignment : {0, 1, 8}) {
          ExpectReference(dtype, activation, hidden, misalignment, seed);
        }
      }
    }
  }
}

TEST(EmbeddingCudaTest, NoRowsAreNoLaunch) {
  EXPECT_TRUE(EmbeddingCuda({.hidden = 8}, 0, nullptr).ok());
}

}  // namespace
}  // namespace muster
