#include "kernels/skinny_matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/kernel_test_support.h"

namespace muster {
namespace {

using ::muster::testing::AllSame;
using ::muster::testing::ForEachTarget;
using ::muster::testing::kEpsilon;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;
using ::muster::testing::TestArray;
using ::muster::testing::TypedArray;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

struct Matrices {
  Matrices(DType dtype, int64_t rows, int64_t n, int64_t k, size_t misalignment)
      : rows(rows),
        n(n),
        k(k),
        padding(static_cast<int64_t>(misalignment)),
        x(ActivationDType(dtype), static_cast<size_t>(rows * (k + padding)), misalignment),
        weights(dtype, static_cast<size_t>(n * (k + padding)), misalignment) {
    RandomFloats random(static_cast<uint32_t>(rows * n + k));
    random.Fill(x);
    random.Fill(weights);
  }

  SkinnyMatmulParams Params(TestArray<float>& y) {
    return {x.data(), k + padding, weights.data(), k + padding, weights.dtype(),
            rows,     k,           y.data(),       n + padding};
  }
  TestArray<float> Room() const {
    return TestArray<float>(static_cast<size_t>(rows * (n + padding)));
  }

  // The terms of an element are added one after the other at worst: each addition rounds by half
  // an epsilon of the sum of their magnitudes.
  double Tolerance(int64_t row, int64_t column) const {
    double magnitudes = 0;
    for (int64_t i = 0; i < k; ++i) {
      magnitudes += std::abs(double{x.Get(static_cast<size_t>(row * (k + padding) + i))} *
                             weights.Get(static_cast<size_t>(column * (k + padding) + i)));
    }
    return (static_cast<double>(k) + 1) * 0.5 * kEpsilon * magnitudes;
  }

  int64_t rows;
  int64_t n;
  int64_t k;
  int64_t padding;
  TypedArray x;
  TypedArray weights;
};

void ExpectMatchesReference(Matrices& matrices) {
  SCOPED_TRACE(::testing::Message() << matrices.rows << " x " << matrices.n << " x " << matrices.k
                                    << " " << Name(matrices.weights.dtype()));
  TestArray<float> expected = matrices.Room();
  TestArray<float> actual = matrices.Room();
  SkinnyMatmulReference(matrices.Params(expected), {0, matrices.n});
  SkinnyMatmulCpu(matrices.Params(actual), {0, matrices.n});
  for (int64_t row = 0; row < matrices.rows; ++row) {
    for (int64_t column = 0; column < matrices.n + matrices.padding; ++column) {
      const size_t i = static_cast<size_t>(row * (matrices.n + matrices.padding) + column);
      if (column < matrices.n) {
        ASSERT_NEAR(actual[i], expected[i], matrices.Tolerance(row, column))
            << "row " << row << ", column " << column;
      } else {
        ASSERT_TRUE(std::isnan(actual[i])) << "written beyond the columns";
      }
    }
  }
}

TEST(SkinnyMatmulTest, MatchesReferenceForEveryShapeAndType) {
  ForEachTarget([] {
    for (const DType dtype : kDTypes) {
      for (const int64_t rows : {1, 2, 3, 4, 5, 8, 32, 33}) {
        for (const int64_t k : {1, 15, 32, 33, 64, 100, 577}) {
          Matrices matrices(dtype, rows, 9, k, static_cast<size_t>(k % 4));
          ExpectMatchesReference(matrices);
        }
      }
      for (const int64_t n : {1, 2, 3, 4, 5, 7, 8}) {
        Matrices matrices(dtype, 6, n, 48, 1);
        ExpectMatchesReference(matrices);
      }
    }
  });
}

TEST(SkinnyMatmulTest, RowsDoNotDependOnTheBatchNorColumnsOnTheRange) {
  ForEachTarget([] {
    for (const DType dtype : kDTypes) {
      Matrices matrices(dtype, 32, 11, 203, 1);
      TestArray<float> whole = matrices.Room();
      SkinnyMatmulCpu(matrices.Params(whole), {0, 11});
      for (int64_t rows = 1; rows <= 32; ++rows) {
        TestArray<float> batch = matrices.Room();
        SkinnyMatmulParams params = matrices.Params(batch);
        params.rows = rows;
        const int64_t cut = rows % 11;
        SkinnyMatmulCpu(params, {0, cut});
        SkinnyMatmulCpu(params, {cut, 11});
        ASSERT_TRUE(AllSame(whole.data(), batch.data(), static_cast<size_t>(rows * 12)))
            << rows << " rows";
      }
    }
  });
}

TEST(SkinnyMatmulTest, NaNStaysInItsRowAndColumn) {
  ForEachTarget([] {
    for (const DType dtype : kDTypes) {
      Matrices matrices(dtype, 5, 6, 40, 0);
      matrices.x.Set(2 * 40 + 39, kNaN);
      matrices.weights.Set(4 * 40 + 7, kNaN);
      TestArray<float> y = matrices.Room();
      SkinnyMatmulCpu(matrices.Params(y), {0, 6});
      for (size_t i = 0; i < y.size(); ++i) {
        EXPECT_EQ(std::isnan(y[i]), i / 6 == 2 || i % 6 == 4) << i;
      }
    }
  });
}

TEST(RoundActivationsTest, RoundsAsTheReferenceDoes) {
  ForEachTarget([] {
    TestArray<float> x(3 * 50, 1);
    RandomFloats(1).Fill(x, -100, 100);
    TestArray<BFloat16> expected(3 * 45);
    TestArray<BFloat16> actual(3 * 45, 1);
    RoundActivationsReference({x.data(), 50, 41, expected.data(), 45}, {0, 3});
    RoundActivationsCpu({x.data(), 50, 41, actual.data(), 45}, {0, 3});
    for (size_t i = 0; i < 3 * 45; ++i) {
      if (i % 45 >= 41) continue;
      EXPECT_EQ(actual[i].bits, expected[i].bits) << i;
    }
  });
}

}  // namespace
}  // namespace muster
