#include <gtest/gtest.h>

#include <vector>

#include "kernels/elementwise_cuda_test_support.h"
#include "kernels/gather_rows.h"

namespace muster {
namespace {

using ::muster::testing::CudaFinish;
using ::muster::testing::DeviceBytes;
using ::muster::testing::FreshSeed;
using ::muster::testing::kDTypes;
using ::muster::testing::RandomFloats;
using ::muster::testing::ToDevice;

const std::vector<int32_t> kIndex{4, 0, 4, 10, 7};
constexpr int64_t kOutputs = 5;
constexpr size_t kRows = 11;

void ExpectReference(DType dtype, size_t hidden, size_t misalignment, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << Name(dtype) << " x " << hidden << " off by " << misalignment
                                    << ", seed " << seed);
  RandomFloats random(seed);
  std::vector<unsigned char> x(kRows * hidden * SizeOf(dtype));
  for (unsigned char& byte : x) byte = static_cast<unsigned char>(random.Integer(0, 255));
  std::vector<unsigned char> expected(kOutputs * hidden * SizeOf(dtype));
  RowGatherParams params{x.data(), kIndex.data(), static_cast<int64_t>(hidden), expected.data(),
                         dtype};
  GatherRowsReference(params, {0, kOutputs});

  const DeviceBytes device_x(x.data(), x.size(), misalignment * SizeOf(dtype));
  const DeviceBytes index = ToDevice(kIndex);
  const DeviceBytes out(expected.size(), misalignment * SizeOf(dtype));
  params.x = device_x.data();
  params.index = index.as<int32_t>();
  params.out = out.data();
  CudaFinish(GatherRowsCuda(params, kOutputs, nullptr));
  std::vector<unsigned char> got(expected.size());
  out.Download(got.data());
  EXPECT_TRUE(out.GuardsIntact());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(int{expected[i]}, int{got[i]}) << "byte " << i;
}

TEST(GatherRowsCudaTest, TakesTheBytesOfTheRowsForEveryTypeAndSize) {
  const uint32_t seed = FreshSeed();
  for (const DType dtype : kDTypes) {
    for (const size_t hidden : {1, 7, 8, 31, 576, 1032, 4096}) {
      for (const size_t misalignment : {0, 1, 8}) {
        ExpectReference(dtype, hidden, misalignment, seed);
      }
    }
  }
}

}  // namespace
}  // namespace muster
