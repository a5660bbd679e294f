#include <gtest/gtest.h>

#include "kernels/add_bias.h"
#include "kernels/elementwise_cuda_test_support.h"

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

constexpr int64_t kRows = 5;

void ExpectReference(DType dtype, int64_t width, int64_t gap, size_t misalignment, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << Name(dtype) << " x " << width << " gap " << gap << " off by "
                                    << misalignment << ", seed " << seed);
  RandomFloats random(seed);
  TypedArray y(dtype, static_cast<size_t>(kRows * (width + gap)));
  TypedArray bias(DType::kFloat32, static_cast<size_t>(width));
  FillWithSpecials(random, y, 3);
  random.Fill(bias);
  const DeviceBytes device_y = ToDevice(y, misalignment);
  const DeviceBytes device_bias = ToDevice(bias, misalignment);
  AddBiasParams params{y.data(), width + gap, width, static_cast<const float*>(bias.data()), dtype};
  AddBiasReference(params, {0, kRows});
  params.y = device_y.data();
  params.bias = device_bias.as<float>();
  CudaFinish(AddBiasCuda(params, kRows, nullptr));
  EXPECT_TRUE(AllSame(y, device_y));
}

// What lies between the rows stays as it was.
TEST(AddBiasCudaTest, HasTheBitsOfTheReferenceForEveryTypeAndSize) {
  const uint32_t seed = FreshSeed();
  for (const DType dtype : kDTypes) {
    for (const int64_t width : {1, 5, 8, 31, 512, 1032, 6144}) {
      for (const int64_t gap : {0, 3, 8}) {
        for (const size_t misalignment : {0, 1, 8}) {
          ExpectReference(dtype, width, gap, misalignment, seed);
        }
      }
    }
  }
}

}  // namespace
}  // namespace muster
