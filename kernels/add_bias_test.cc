#include "kernels/add_bias.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernel_test_support.h"

namespace muster {
namespace {

using ::muster::testing::AllSame;
using ::muster::testing::ForEachTarget;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;
using ::muster::testing::TestArray;

constexpr int64_t kRows = 3;

struct Fixture {
  Fixture(size_t width, size_t misalignment)
      : stride(static_cast<int64_t>(width + 3)),
        y(static_cast<size_t>(kRows * stride), misalignment),
        bias(width, misalignment + 1),
        params{y.data(), stride, static_cast<int64_t>(width), bias.data()} {
    RandomFloats random(9);
    random.Fill(y, -3, 3);
    random.Fill(bias);
  }

  int64_t stride;
  TestArray<float> y;
  TestArray<float> bias;
  AddBiasParams params;
};

// A sum of two is rounded once, in the reference and here: not a bit is to differ, and what lies
// between the rows stays as it was.
TEST(AddBiasTest, HasTheBitsOfTheReferenceForEverySize) {
  ForEachTarget([] {
    for (const size_t width : {1, 5, 16, 31, 33, 512}) {
      for (const size_t misalignment : {0, 1, 7}) {
        SCOPED_TRACE(::testing::Message() << width << " off by " << misalignment);
        Fixture expected(width, misalignment);
        Fixture actual(width, misalignment);
        AddBiasReference(expected.params, {0, kRows});
        AddBiasCpu(actual.params, {0, 1});
        AddBiasCpu(actual.params, {1, kRows});
        EXPECT_TRUE(AllSame(expected.y.data(), actual.y.data(), actual.y.size()));
      }
    }
  });
}

TEST(AddBiasTest, NaNShows) {
  ForEachTarget([] {
    Fixture fixture(20, 0);
    fixture.y[2] = fixture.bias[17] = kNaN;
    AddBiasCpu(fixture.params, {0, 1});
    for (size_t i = 0; i < 20; ++i) EXPECT_EQ(std::isnan(fixture.y[i]), i == 2 || i == 17) << i;
  });
}

}  // namespace
}  // namespace muster
