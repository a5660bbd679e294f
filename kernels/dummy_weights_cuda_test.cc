#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda_test_support.h"
#include "kernels/dummy_weights.h"

namespace muster {
namespace {

using ::muster::testing::CudaFinish;
using ::muster::testing::DeviceBytes;

struct Case {
  int64_t first, row_stride, columns, rows;
};

constexpr Case kCases[] = {
    {0, 1, 1, 1},          {1, 3, 2, 5},       {77, 131, 129, 3},
    {0, 4096, 4096, 64},   {13, 999, 998, 70}, {int64_t{1} << 40, 513, 512, 9},
    {5, 14336, 1792, 33},  {6, 7, 7, 3000},    {0, 0, 100003, 1},
    {3, 28672, 28672, 11}, {0, 5, 0, 4},       {0, 5, 4, 0}};

// The bits of the reference, and nothing beside them.
void Check(const DummyTensor& tensor, const Case& c, DType dtype, size_t misalignment) {
  SCOPED_TRACE(::testing::Message() << Name(dtype) << ", " << c.rows << " rows of " << c.columns
                                    << " from " << c.first << " by " << c.row_stride);
  const size_t bytes = static_cast<size_t>(c.rows * c.columns) * SizeOf(dtype);
  DeviceBytes device(bytes, misalignment * SizeOf(dtype));
  std::vector<unsigned char> expected(bytes), actual(bytes);
  DummyWeightsParams params = {.tensor = tensor,
                               .first = c.first,
                               .row_stride = c.row_stride,
                               .columns = c.columns,
                               .dtype = dtype,
                               .out = expected.data()};
  DummyWeightsReference(params, {0, c.rows});
  params.out = device.data();
  CudaFinish(DummyWeightsCuda(params, c.rows, nullptr));
  device.Download(actual.data());
  EXPECT_TRUE(device.GuardsIntact());
  for (size_t i = 0; i < bytes; ++i) {
    ASSERT_EQ(int{expected[i]}, int{actual[i]}) << "byte " << i << " of " << bytes;
  }
}

TEST(DummyWeightsCuda, MakesTheBitsOfTheReferenceForEveryRectangle) {
  const uint64_t seed = (uint64_t{std::random_device()()} << 32) | std::random_device()();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (const Case& c : kCases) {
      for (const size_t misalignment : {0, 1, 3}) {
        Check({.key = seed, .step = 0.013f}, c, dtype, misalignment);
        Check({.key = seed, .mean = 1}, c, dtype, misalignment);
      }
    }
  }
}

}  // namespace
}  // namespace muster
