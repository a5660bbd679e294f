#ifndef MUSTER_KERNELS_ELEMENTWISE_CUDA_TEST_SUPPORT_H_
#define MUSTER_KERNELS_ELEMENTWISE_CUDA_TEST_SUPPORT_H_

#include <random>
#include <vector>

#include "kernels/cuda_test_support.h"
#include "kernels/kernel_test_support.h"

namespace muster::testing {

inline constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

// Another one in every run; to be told with a failure.
inline uint32_t FreshSeed() { return std::random_device{}(); }

// The largest relative error of rounding to a type's normal numbers.
inline double UnitRoundoff(DType dtype) {
  return dtype == DType::kFloat32 ? 0x1p-24 : dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}

// As float32.
inline std::vector<float> ToHost(const TypedArray& from) {
  std::vector<float> values(from.size());
  for (size_t i = 0; i < from.size(); ++i) values[i] = from.Get(i);
  return values;
}

inline ::testing::AssertionResult AllSame(const TypedArray& expected, const DeviceBytes& actual) {
  if (!actual.GuardsIntact()) {
    return ::testing::AssertionFailure() << "written beside the array";
  }
  const std::vector<float> wanted = ToHost(expected);
  const std::vector<float> got = ToHost(actual, expected.dtype());
  return AllSame(wanted.data(), got.data(), wanted.size());
}

// Values in [-limit, limit], and among them what conversions may get wrong.
inline void FillWithSpecials(RandomFloats& random, TypedArray& array, float limit) {
  constexpr float kSpecials[] = {-0.0f,   0.0f,      1e-42f,     -1e-39f, 3e-8f,
                                 -6e-8f,  65504.0f,  65519.0f,   65520.f, -7e4f,
                                 3.4e38f, kInfinity, -kInfinity, kNaN};
  random.Fill(array, -limit, limit);
  for (const float special : kSpecials) {
    array.Set(static_cast<size_t>(random.Integer(0, static_cast<int64_t>(array.size()) - 1)),
              special);
  }
}

}  // namespace muster::testing

#endif  // MUSTER_KERNELS_ELEMENTWISE_CUDA_TEST_SUPPORT_H_
