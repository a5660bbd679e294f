#include "kernels/swiglu.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_test_support.h"

namespace muster {
namespace {

using ::muster::testing::AllClose;
using ::muster::testing::ForEachTarget;
using ::muster::testing::kEpsilon;
using ::muster::testing::kInfinity;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;
using ::muster::testing::TestArray;

constexpr int64_t kRows = 3;

// exp within an ulp, then three roundings; below 1e-36 results may be 0.
auto Tolerance(const TestArray<float>& expected) {
  return [&expected](size_t i) { return 4 * kEpsilon * std::abs(expected[i]) + 1e-36; };
}

TEST(SwiGluTest, MatchesReferenceForEverySize) {
  ForEachTarget([] {
    for (const size_t width : {1, 5, 16, 31, 33, 512}) {
      for (const size_t misalignment : {0, 1, 7}) {
        SCOPED_TRACE(::testing::Message() << width << " off by " << misalignment);
        const int64_t stride = static_cast<int64_t>(2 * width + 3);
        TestArray<float> gate_up(static_cast<size_t>(kRows * stride), misalignment);
        RandomFloats(2).Fill(gate_up, -12, 12);
        TestArray<float> expected(kRows * width);
        TestArray<float> actual(kRows * width, misalignment);
        const int64_t size = static_cast<int64_t>(width);
        SwiGluReference({gate_up.data(), stride, size, expected.data(), size}, {0, kRows});
        SwiGluCpu({gate_up.data(), stride, size, actual.data(), size}, {0, kRows});
        EXPECT_TRUE(AllClose(expected.data(), actual.data(), actual.size(), Tolerance(expected)));
      }
    }
  });
}

TEST(SwiGluTest, GoesToZeroAndToTheIdentityFarOut) {
  ForEachTarget([] {
    const float gates[] = {-1e38f, -1000, -105,   -104, -103, -89, -88, -60,   -1e-42f,
                           -0.0f,  0,     1e-42f, 60,   88,   89,  105, 1e38f, kInfinity};
    for (const float gate : gates) {
      TestArray<float> gate_up(40);
      std::fill(gate_up.begin(), gate_up.begin() + 20, gate);
      std::fill(gate_up.begin() + 20, gate_up.end(), 0.5f);
      TestArray<float> expected(20);
      TestArray<float> actual(20);
      SwiGluReference({gate_up.data(), 40, 20, expected.data(), 20}, {0, 1});
      SwiGluCpu({gate_up.data(), 40, 20, actual.data(), 20}, {0, 1});
      EXPECT_TRUE(AllClose(expected.data(), actual.data(), 20, Tolerance(expected))) << gate;
    }
  });
}

TEST(SwiGluTest, NaNShows) {
  ForEachTarget([] {
    TestArray<float> gate_up(40);
    std::fill(gate_up.begin(), gate_up.end(), 1.0f);
    gate_up[3] = gate_up[19] = gate_up[24] = kNaN;
    TestArray<float> out(20);
    SwiGluCpu({gate_up.data(), 40, 20, out.data(), 20}, {0, 1});
    for (size_t i = 0; i < 20; ++i) {
      EXPECT_EQ(std::isnan(out[i]), i == 3 || i == 19 || i == 4) << i;
    }
  });
}

}  // namespace
}  // namespace muster
