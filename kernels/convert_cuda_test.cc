#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/convert.h"
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

void ExpectReference(const TypedArray& from, DType to_dtype, size_t misalignment) {
  SCOPED_TRACE(::testing::Message() << from.size() << " " << Name(from.dtype()) << " to "
                                    << Name(to_dtype) << " off by " << misalignment);
  TypedArray expected(to_dtype, from.size());
  ElementConversion params{from.data(), from.dtype(), expected.data(), to_dtype};
  const int64_t count = static_cast<int64_t>(from.size());
  ConvertReference(params, {0, count});
  const DeviceBytes device = ToDevice(from, misalignment);
  const DeviceBytes to(from.size() * SizeOf(to_dtype), misalignment * SizeOf(to_dtype));
  params.from = device.data();
  params.to = to.data();
  CudaFinish(ConvertCuda(params, count, nullptr));
  EXPECT_TRUE(AllSame(expected, to));
}

TEST(ConvertCudaTest, HasTheBitsOfTheReferenceForEveryPairOfTypesAndSize) {
  const uint32_t seed = FreshSeed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  RandomFloats random(seed);
  for (const DType from_dtype : kDTypes) {
    for (const size_t count : {1, 7, 8, 9, 255, 2048, 2055, 100003}) {
      TypedArray from(from_dtype, count);
      FillWithSpecials(random, from, 1e5f);
      for (const DType to_dtype : kDTypes) {
        for (const size_t misalignment : {0, 1, 8}) ExpectReference(from, to_dtype, misalignment);
      }
    }
  }
}

TEST(ConvertCudaTest, TakesEveryPatternOfSixteenBits) {
  for (const DType from_dtype : {DType::kBFloat16, DType::kFloat16}) {
    TypedArray from(from_dtype, 1 << 16);
    for (uint32_t bits = 0; bits < 1 << 16; ++bits) {
      static_cast<uint16_t*>(from.data())[bits] = static_cast<uint16_t>(bits);
    }
    for (const DType to_dtype : kDTypes) {
      for (const size_t misalignment : {0, 1}) ExpectReference(from, to_dtype, misalignment);
    }
  }
}

// Every value of 16 bits, halfway to the next one, and a step to either side of that.
TEST(ConvertCudaTest, BreaksTiesToEven) {
  for (const DType to_dtype : {DType::kBFloat16, DType::kFloat16}) {
    TypedArray from(DType::kFloat32, 3 << 16);
    for (uint32_t bits = 0; bits < 1 << 16; ++bits) {
      const uint16_t pattern = static_cast<uint16_t>(bits);
      const uint16_t next = static_cast<uint16_t>(bits + 1);
      TypedArray pair(to_dtype, 2);
      std::memcpy(pair.data(), &pattern, sizeof(pattern));
      std::memcpy(static_cast<uint16_t*>(pair.data()) + 1, &next, sizeof(next));
      const float middle = static_cast<float>((double{pair.Get(0)} + pair.Get(1)) / 2);
      from.Set(3 * bits, middle);
      from.Set(3 * bits + 1, std::nextafter(middle, -testing::kInfinity));
      from.Set(3 * bits + 2, std::nextafter(middle, testing::kInfinity));
    }
    for (const size_t misalignment : {0, 1}) ExpectReference(from, to_dtype, misalignment);
  }
}

TEST(ConvertCudaTest, TakesAnyPatternOfThirtyTwoBits) {
  const uint32_t seed = FreshSeed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 engine(seed);
  TypedArray from(DType::kFloat32, 1 << 20);
  for (size_t i = 0; i < from.size(); ++i) static_cast<uint32_t*>(from.data())[i] = engine();
  for (const DType to_dtype : kDTypes) ExpectReference(from, to_dtype, 0);
}

}  // namespace
}  // namespace muster
