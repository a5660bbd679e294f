#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <optional>
#include <random>
#include <vector>

#include "kernels/cuda_test_support.h"
#include "kernels/skinny_matmul.h"

namespace muster {
namespace {

using ::muster::testing::AllClose;
using ::muster::testing::AllSame;
using ::muster::testing::CudaFinish;
using ::muster::testing::DeviceBytes;
using ::muster::testing::kEpsilon;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;
using ::muster::testing::RoundingOf;
using ::muster::testing::ToDevice;
using ::muster::testing::ToHost;
using ::muster::testing::TypedArray;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
constexpr int kMultiprocessors = 132;

uint32_t FreshSeed() {
  const uint32_t seed = std::random_device()();
  std::printf("seed %u\n", seed);
  return seed;
}

struct Shape {
  int64_t rows;
  int64_t n;
  int64_t k;
};

struct Layout {
  DType dtype;
  DType y_dtype;
  bool bias = false;
  int64_t padding = 0;  // elements between rows
  size_t misalignment = 0;
};

// A product, its reference, and its operands on the device.
class Product {
 public:
  Product(const Shape& shape, const Layout& layout, RandomFloats& random)
      : shape_(shape),
        layout_(layout),
        x_(layout.dtype, shape.rows * (shape.k + layout.padding)),
        weights_(layout.dtype, shape.n * (shape.k + layout.padding)),
        bias_(DType::kFloat32, shape.n) {
    random.Fill(x_);
    random.Fill(weights_);
    random.Fill(bias_);
  }

  TypedArray& x() { return x_; }
  TypedArray& weights() { return weights_; }

  // y of the first `rows` rows, elements between its rows included.
  std::vector<float> OnDevice(int64_t rows) const {
    const DeviceBytes x = ToDevice(x_, layout_.misalignment);
    const DeviceBytes weights = ToDevice(weights_, layout_.misalignment);
    const DeviceBytes bias = ToDevice(bias_);
    const DeviceBytes y(rows * YStride() * SizeOf(layout_.y_dtype),
                        layout_.misalignment * SizeOf(layout_.y_dtype));
    SkinnyMatmulParams params = Params(y.data(), layout_.y_dtype);
    params.x = x.data();
    params.weights = weights.data();
    params.rows = rows;
    if (layout_.bias) params.bias = bias.as<float>();
    CudaFinish(SkinnyMatmulCuda(params, shape_.n, kMultiprocessors, nullptr));
    EXPECT_TRUE(y.GuardsIntact());
    return ToHost(y, layout_.y_dtype);
  }

  void ExpectMatchesReference() const {
    SCOPED_TRACE(::testing::Message()
                 << shape_.rows << " x " << shape_.n << " x " << shape_.k << " "
                 << Name(layout_.dtype) << " to " << Name(layout_.y_dtype) << ", padding "
                 << layout_.padding << ", misalignment " << layout_.misalignment);
    TypedArray expected(DType::kFloat32, shape_.rows * YStride());
    SkinnyMatmulReference(Params(expected.data(), DType::kFloat32), {0, shape_.n});
    const std::vector<float> actual = OnDevice(shape_.rows);
    for (int64_t row = 0; row < shape_.rows; ++row) {
      const int64_t at = row * YStride();
      const float* values = static_cast<const float*>(expected.data()) + at;
      ASSERT_TRUE(AllClose(values, actual.data() + at, shape_.n,
                           [&](size_t column) {
                             return Tolerance(row, static_cast<int64_t>(column), values[column]);
                           }))
          << "row " << row;
      for (int64_t i = shape_.n; i < YStride(); ++i) {
        ASSERT_TRUE(std::isnan(actual[at + i])) << "written beyond the columns";
      }
    }
  }

 private:
  int64_t YStride() const { return shape_.n + layout_.padding; }

  SkinnyMatmulParams Params(void* y, DType y_dtype) const {
    return {.x = x_.data(),
            .x_row_stride = shape_.k + layout_.padding,
            .weights = weights_.data(),
            .weights_row_stride = shape_.k + layout_.padding,
            .dtype = layout_.dtype,
            .rows = shape_.rows,
            .k = shape_.k,
            .y = y,
            .y_row_stride = YStride(),
            .x_dtype = layout_.dtype,
            .y_dtype = y_dtype,
            .bias = layout_.bias ? static_cast<const float*>(bias_.data()) : nullptr};
  }

  // Additions in any order, each rounded (tensor cores cut off) by at most an epsilon of what was
  // added up so far; then the rounding of the store.
  double Tolerance(int64_t row, int64_t column, float value) const {
    double magnitudes = std::abs(bias_.Get(column));
    for (int64_t i = 0; i < shape_.k; ++i) {
      const int64_t stride = shape_.k + layout_.padding;
      magnitudes += std::abs(double{x_.Get(row * stride + i)} * weights_.Get(column * stride + i));
    }
    // Lanes and parts add up k / 32 terms at most one after the other, then 32 sums in a tree.
    const double additions = static_cast<double>(shape_.k) / 16 + 32;
    return additions * kEpsilon * magnitudes +
           1.001 * RoundingOf(layout_.y_dtype) * std::abs(value);
  }

  const Shape shape_;
  const Layout layout_;
  TypedArray x_;
  TypedArray weights_;
  TypedArray bias_;
};

TEST(SkinnyMatmulCudaTest, MatchesReferenceForEveryShapeAndType) {
  RandomFloats random(FreshSeed());
  for (const DType dtype : kDTypes) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 24, 31, 32, 33, 70}) {
      for (const int64_t k : {8, 32, 40, 64, 200, 576, 1024}) {
        Product({rows, 67, k}, {dtype, dtype}, random).ExpectMatchesReference();
      }
    }
    for (const int64_t n : {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 400}) {
      for (const int64_t rows : {1, 11, 32}) {
        Product({rows, n, 328}, {dtype, DType::kFloat32, true}, random).ExpectMatchesReference();
      }
    }
  }
}

TEST(SkinnyMatmulCudaTest, MatchesReferenceForOddSizesStridesAndPointers) {
  RandomFloats random(FreshSeed());
  for (const DType dtype : kDTypes) {
    for (const int64_t rows : {1, 3, 6, 20, 37}) {
      for (const int64_t k : {1, 2, 7, 12, 33, 100, 577}) {
        for (const int64_t padding : {0, 3, 4, 8}) {
          const Layout layout{dtype, dtype, padding == 3, padding, static_cast<size_t>(k % 5)};
          Product({rows, 21, k}, layout, random).ExpectMatchesReference();
        }
      }
      Product({rows, 40, 512}, {dtype, dtype, true, 8, 8}, random).ExpectMatchesReference();
      Product({rows, 40, 512}, {dtype, dtype, true, 0, 1}, random).ExpectMatchesReference();
    }
  }
}

TEST(SkinnyMatmulCudaTest, MatchesReferenceForManyTilesAndLongRows) {
  RandomFloats random(FreshSeed());
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    for (const int64_t rows : {1, 8, 16, 32}) {
      Product({rows, 128, 14336}, {dtype, dtype, true}, random).ExpectMatchesReference();
      Product({rows, 576, 1544}, {dtype, dtype}, random).ExpectMatchesReference();
      Product({rows, 1000, 2056}, {dtype, DType::kFloat32}, random).ExpectMatchesReference();
      Product({rows, 9001, 72}, {dtype, dtype, true}, random).ExpectMatchesReference();
    }
  }
}

TEST(SkinnyMatmulCudaTest, RowsDoNotDependOnTheBatch) {
  RandomFloats random(FreshSeed());
  for (const DType dtype : kDTypes) {
    for (const int64_t k : {1536, 1531}) {
      const Product product({32, 200, k}, {dtype, dtype, true}, random);
      const std::vector<float> whole = product.OnDevice(32);
      for (int rows = 1; rows < 32; ++rows) {
        const std::vector<float> batch = product.OnDevice(rows);
        ASSERT_TRUE(AllSame(whole.data(), batch.data(), batch.size())) << rows << " rows";
      }
    }
  }
}

TEST(SkinnyMatmulCudaTest, NaNStaysInItsRowAndColumn) {
  RandomFloats random(FreshSeed());
  for (const DType dtype : kDTypes) {
    for (const int64_t rows : {5, 12, 30}) {
      Product product({rows, 37, 264}, {dtype, dtype}, random);
      product.x().Set(2 * 264 + 263, kNaN);
      product.weights().Set(36 * 264 + 7, kNaN);
      const std::vector<float> y = product.OnDevice(rows);
      for (size_t i = 0; i < y.size(); ++i) {
        EXPECT_EQ(std::isnan(y[i]), i / 37 == 2 || i % 37 == 36) << i;
      }
    }
  }
}

TEST(SkinnyMatmulCudaTest, RefusesOtherTypes) {
  SkinnyMatmulParams params{};
  params.dtype = DType::kBFloat16;
  params.x_dtype = DType::kFloat32;
  EXPECT_FALSE(SkinnyMatmulCuda(params, 1, kMultiprocessors, nullptr).ok());
  params.x_dtype = DType::kBFloat16;
  params.y_dtype = DType::kFloat16;
  EXPECT_FALSE(SkinnyMatmulCuda(params, 1, kMultiprocessors, nullptr).ok());
}

}  // namespace
}  // namespace muster
