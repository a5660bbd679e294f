#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/elementwise_cuda_test_support.h"
#include "kernels/swiglu.h"

namespace muster {
namespace {

using ::muster::testing::AllClose;
using ::muster::testing::CudaFinish;
using ::muster::testing::DeviceBytes;
using ::muster::testing::FreshSeed;
using ::muster::testing::kDTypes;
using ::muster::testing::kEpsilon;
using ::muster::testing::kInfinity;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;
using ::muster::testing::ToDevice;
using ::muster::testing::ToHost;
using ::muster::testing::TypedArray;
using ::muster::testing::UnitRoundoff;

constexpr int64_t kRows = 3;

// One store's rounding beside the float32 arithmetic: a few ulps, of which the fast exponential has
// one more for each unit of the gate; and half of float16's least step. Below 1e-36 results may be
// 0, as on the CPU.
double Tolerance(DType dtype, double expected, double largest_gate) {
  const bool fast = dtype != DType::kFloat32;
  const double arithmetic = (fast ? 6 + 1.2 * largest_gate : 4) * kEpsilon;
  const double store = fast ? UnitRoundoff(dtype) : 0;
  const double step = dtype == DType::kFloat16 ? 0x1p-25 : 0;
  return (arithmetic + store) * std::abs(expected) + step + 1e-36;
}

// The reference on the same values, its result in float32.
std::vector<float> Expected(const std::vector<float>& gate_up, int64_t stride, int64_t width) {
  std::vector<float> out(static_cast<size_t>(kRows * width));
  SwiGluReference({gate_up.data(), stride, width, out.data(), width}, {0, kRows});
  return out;
}

void ExpectReference(DType dtype, int64_t width, int64_t gap, size_t misalignment, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << Name(dtype) << " x " << width << " gap " << gap << " off by "
                                    << misalignment << ", seed " << seed);
  const int64_t stride = 2 * width + gap;
  const int64_t out_stride = width + gap;
  TypedArray gate_up(dtype, static_cast<size_t>(kRows * stride));
  RandomFloats(seed).Fill(gate_up, -20, 20);
  const std::vector<float> expected = Expected(ToHost(gate_up), stride, width);

  const DeviceBytes from = ToDevice(gate_up, misalignment);
  const DeviceBytes out(static_cast<size_t>(kRows * out_stride) * SizeOf(dtype),
                        misalignment * SizeOf(dtype));
  const SwiGluParams params{from.data(), stride, width, out.data(), out_stride, dtype};
  CudaFinish(SwiGluCuda(params, kRows, nullptr));
  EXPECT_TRUE(out.GuardsIntact());
  const std::vector<float> all = ToHost(out, dtype);
  for (int64_t row = 0; row < kRows; ++row) {
    const float* wanted = expected.data() + row * width;
    const float* got = all.data() + row * out_stride;
    EXPECT_TRUE(AllClose(wanted, got, static_cast<size_t>(width),
                         [&](size_t i) { return Tolerance(dtype, wanted[i], 20); }));
    for (int64_t i = width; i < out_stride; ++i) EXPECT_TRUE(std::isnan(got[i])) << "gap " << i;
  }
}

TEST(SwiGluCudaTest, MatchesReferenceForEveryTypeAndSize) {
  const uint32_t seed = FreshSeed();
  for (const DType dtype : kDTypes) {
    for (const int64_t width : {1, 5, 8, 31, 512, 1032, 4779}) {
      for (const int64_t gap : {0, 3, 8}) {
        for (const size_t misalignment : {0, 1, 8}) {
          ExpectReference(dtype, width, gap, misalignment, seed);
        }
      }
    }
  }
}

// In every element of a vector, and of a row that has none.
TEST(SwiGluCudaTest, GoesToZeroAndToTheIdentityFarOut) {
  const float gates[] = {-1e38f,  -1000, -105, -104,   -103, -89, -88, -87, -60,
                         -1e-42f, -0.0f, 0,    1e-42f, 60,   88,  89,  105, kInfinity};
  for (const DType dtype : kDTypes) {
    for (const float gate : gates) {
      for (const int64_t width : {16, 19}) {
        SCOPED_TRACE(::testing::Message() << Name(dtype) << " " << gate << " x " << width);
        TypedArray gate_up(dtype, static_cast<size_t>(kRows * 2 * width));
        for (size_t i = 0; i < gate_up.size(); ++i) {
          gate_up.Set(i, static_cast<int64_t>(i) % (2 * width) < width ? gate : 0.5f);
        }
        const std::vector<float> expected = Expected(ToHost(gate_up), 2 * width, width);
        const DeviceBytes from = ToDevice(gate_up);
        const DeviceBytes out(expected.size() * SizeOf(dtype));
        const SwiGluParams params{from.data(), 2 * width, width, out.data(), width, dtype};
        CudaFinish(SwiGluCuda(params, kRows, nullptr));
        const std::vector<float> got = ToHost(out, dtype);
        const double exponent = std::isfinite(gate_up.Get(0)) ? std::min(std::abs(gate), 110.f) : 0;
        for (size_t i = 0; i < expected.size(); ++i) {
          if (std::isnan(expected[i]) && std::isnan(got[i])) continue;
          if (expected[i] == got[i]) continue;
          ASSERT_LE(std::abs(double{got[i]} - expected[i]), Tolerance(dtype, expected[i], exponent))
              << i << " expected " << expected[i] << " got " << got[i];
        }
      }
    }
  }
}

TEST(SwiGluCudaTest, NaNShows) {
  for (const DType dtype : kDTypes) {
    TypedArray gate_up(dtype, 48);
    for (size_t i = 0; i < gate_up.size(); ++i) gate_up.Set(i, 1);
    gate_up.Set(3, kNaN);
    gate_up.Set(24 + 7, kNaN);
    const DeviceBytes from = ToDevice(gate_up);
    const DeviceBytes out(24 * SizeOf(dtype));
    CudaFinish(SwiGluCuda({from.data(), 48, 24, out.data(), 24, dtype}, 1, nullptr));
    const std::vector<float> got = ToHost(out, dtype);
    for (size_t i = 0; i < 24; ++i) EXPECT_EQ(std::isnan(got[i]), i == 3 || i == 7) << i;
  }
}

}  // namespace
}  // namespace muster
