#include "kernels/dummy_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "kernels/kernel_test_support.h"

namespace muster {
namespace {

using ::muster::testing::TypedArray;

constexpr DummyTensor kNormal = {.key = 0x0123456789ABCDEF, .step = 1 / kDummySumDeviation};

TypedArray Generate(const DummyTensor& tensor, DType dtype, int64_t rows, int64_t columns) {
  TypedArray out(dtype, static_cast<size_t>(rows * columns));
  DummyWeightsCpu({.tensor = tensor,
                   .row_stride = columns,
                   .columns = columns,
                   .dtype = dtype,
                   .out = out.data()},
                  {0, rows});
  return out;
}

TEST(DummyWeights, TheProcessorMakesTheBitsOfTheReferenceForEveryRectangle) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (const int64_t first : {int64_t{0}, int64_t{1}, int64_t{77}, int64_t{1} << 40}) {
      for (const int64_t columns : {1, 2, 3, 64, 129}) {
        for (const size_t misalignment : {0, 1}) {
          const size_t count = static_cast<size_t>(3 * columns);
          TypedArray expected(dtype, count), actual(dtype, count, misalignment);
          DummyWeightsParams params = {.tensor = {.key = seed, .step = 0.013f},
                                       .first = first,
                                       .row_stride = 131,
                                       .columns = columns,
                                       .dtype = dtype,
                                       .out = expected.data()};
          DummyWeightsReference(params, {0, 3});
          params.out = actual.data();
          DummyWeightsCpu(params, {2, 3});
          DummyWeightsCpu(params, {0, 2});
          EXPECT_EQ(std::memcmp(expected.data(), actual.data(), count * SizeOf(dtype)), 0)
              << Name(dtype) << ", " << columns << " columns from " << first;
        }
      }
    }
  }
}

TEST(DummyWeights, ARectangleIsWhatTheWholeHasThere) {
  constexpr int64_t kRows = 9, kColumns = 13;
  TypedArray whole = Generate(kNormal, DType::kBFloat16, kRows, kColumns);
  constexpr int64_t kFirstRow = 2, kFirstColumn = 5, kWidth = 7, kHeight = 4;
  TypedArray part(DType::kBFloat16, kWidth * kHeight);
  DummyWeightsCpu({.tensor = kNormal,
                   .first = kFirstRow * kColumns + kFirstColumn,
                   .row_stride = kColumns,
                   .columns = kWidth,
                   .dtype = DType::kBFloat16,
                   .out = part.data()},
                  {0, kHeight});
  for (int64_t row = 0; row < kHeight; ++row) {
    for (int64_t column = 0; column < kWidth; ++column) {
      EXPECT_EQ(part.Get(row * kWidth + column),
                whole.Get((kFirstRow + row) * kColumns + kFirstColumn + column));
    }
  }
}

// Of four moments, each within five deviations of what a million draws leave.
TEST(DummyWeights, AreCloseToNormal) {
  constexpr size_t kCount = size_t{1} << 20;
  TypedArray values = Generate(kNormal, DType::kFloat32, 1, kCount);
  double moments[5] = {}, neighbours = 0;
  for (size_t i = 0; i < kCount; ++i) {
    const double value = values.Get(i);
    EXPECT_LE(std::abs(value), 3.46);
    for (int power = 1; power <= 4; ++power) moments[power] += std::pow(value, power) / kCount;
    if (i > 0) neighbours += value * values.Get(i - 1) / kCount;
  }
  const double deviation = 5 / std::sqrt(static_cast<double>(kCount));
  EXPECT_NEAR(moments[1], 0, deviation);
  EXPECT_NEAR(moments[2], 1, 2 * deviation);
  EXPECT_NEAR(moments[3], 0, 4 * deviation);
  EXPECT_NEAR(moments[4], 2.7, 10 * deviation);  // of a sum of four; 3 of a normal one
  EXPECT_NEAR(neighbours, 0, deviation);
}

TEST(DummyWeights, TensorsDifferAndNoneRepeatsARowOfItself) {
  constexpr int64_t kColumns = 16;
  std::set<std::vector<float>> rows;
  for (const uint64_t key : {1, 2, 3}) {
    TypedArray values = Generate({.key = key, .step = 1}, DType::kFloat32, 1000, kColumns);
    for (int64_t row = 0; row < 1000; ++row) {
      std::vector<float> one;
      for (int64_t i = 0; i < kColumns; ++i) one.push_back(values.Get(row * kColumns + i));
      rows.insert(one);
    }
  }
  EXPECT_EQ(rows.size(), 3000u);
}

TEST(DummyWeights, WithoutAStepAllAreTheMean) {
  TypedArray values = Generate({.key = 5, .mean = 1}, DType::kFloat16, 1, 33);
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values.Get(i), 1);
}

}  // namespace
}  // namespace muster
