#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "kernels/elementwise_cuda_test_support.h"
#include "kernels/lse_merge.h"

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
using ::muster::testing::RoundingOf;
using ::muster::testing::ToHost;
using ::muster::testing::TypedArray;

constexpr int64_t kRows = 5;
constexpr float kSpread = 40;  // of the LSE

struct Shape {
  int world;
  int64_t heads, head_dim;
  IndexRange columns;
  size_t misalignment;
};

// The peers' parts, LSE and room for the result, on the host and on the device.
class Merge {
 public:
  Merge(RandomFloats& random, const Shape& shape, DType dtype) : shape_(shape), dtype_(dtype) {
    for (int peer = 0; peer < shape.world; ++peer) {
      TypedArray& part = parts_.emplace_back(dtype, kRows * PartStride());
      TypedArray& lse = lse_.emplace_back(DType::kFloat32, kRows * shape.heads);
      random.Fill(part);
      random.Fill(lse, -kSpread / 2, kSpread / 2);
      for (size_t i = 0; i < lse.size(); ++i) {
        const bool nobody = i % 7 == 3;
        if (nobody || random.Integer(0, 3) == 0) Absent(i, part, lse);
      }
    }
  }

  void Check() {
    const size_t count = kRows * Columns();
    TypedArray expected(dtype_, count);
    LseMergeParams params = Params();
    params.out = expected.data();
    for (int peer = 0; peer < shape_.world; ++peer) {
      params.parts[peer] = parts_[peer].data();
      params.lse[peer] = static_cast<const float*>(lse_[peer].data());
    }
    LseMergeReference(params, {0, kRows});
    std::vector<std::unique_ptr<DeviceBytes>> owned;
    const auto upload = [&](const TypedArray& array) {
      const size_t element = SizeOf(array.dtype());
      owned.push_back(std::make_unique<DeviceBytes>(array.data(), array.size() * element,
                                                    shape_.misalignment * element));
      return owned.back()->data();
    };
    for (int peer = 0; peer < shape_.world; ++peer) {
      params.parts[peer] = upload(parts_[peer]);
      params.lse[peer] = static_cast<const float*>(upload(lse_[peer]));
    }
    const DeviceBytes out(count * SizeOf(dtype_), shape_.misalignment * SizeOf(dtype_));
    params.out = out.data();
    CudaFinish(LseMergeCuda(params, kRows, nullptr));
    EXPECT_TRUE(out.GuardsIntact());
    const std::vector<float> wanted = ToHost(expected), got = ToHost(out, dtype_);
    // |parts| <= 1 and the weights add up to 1. An exponential is off by the roundings of its
    // argument and 2 of its own, each sum by one a rank, the quotient and the stores by one each.
    EXPECT_TRUE(AllClose(wanted.data(), got.data(), count, [&](size_t i) {
      return (2 * kSpread + 8 + 2 * shape_.world) * kEpsilon +
             2 * RoundingOf(dtype_) * std::abs(wanted[i]) + 0x1p-25;
    }));
  }

 private:
  size_t Columns() const { return static_cast<size_t>(shape_.columns.end - shape_.columns.begin); }
  size_t PartStride() const { return Columns() + 1; }

  // No keys for one head of a row: its columns are never read.
  void Absent(size_t i, TypedArray& part, TypedArray& lse) const {
    lse.Set(i, -kInfinity);
    const int64_t row = static_cast<int64_t>(i) / shape_.heads;
    const int64_t head = static_cast<int64_t>(i) % shape_.heads;
    for (int64_t c = shape_.columns.begin; c < shape_.columns.end; ++c) {
      if (c / shape_.head_dim != head) continue;
      part.Set(static_cast<size_t>(row) * PartStride() + (c - shape_.columns.begin), kNaN);
    }
  }

  LseMergeParams Params() const {
    LseMergeParams params{};
    params.part_row_stride = static_cast<int64_t>(PartStride());
    params.part_column = shape_.columns.begin;
    params.lse_row_stride = shape_.heads;
    params.world = shape_.world;
    params.head_dim = shape_.head_dim;
    params.columns = shape_.columns;
    params.out_row_stride = static_cast<int64_t>(Columns());
    params.activation = dtype_;
    return params;
  }

  const Shape shape_;
  const DType dtype_;
  std::vector<TypedArray> parts_, lse_;
};

TEST(LseMergeCudaTest, MatchesTheReferenceForAnyWorldAndSlice) {
  const uint32_t seed = FreshSeed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  RandomFloats random(seed);
  for (DType dtype : kDTypes) {
    for (const Shape& shape :
         {Shape{1, 3, 64, {0, 192}, 0}, Shape{2, 3, 64, {96, 192}, 1}, Shape{3, 3, 5, {5, 10}, 0},
          Shape{5, 4, 20, {17, 33}, 3}, Shape{16, 32, 128, {512, 768}, 0},
          Shape{16, 7, 16, {105, 112}, 1}}) {
      SCOPED_TRACE(::testing::Message() << shape.world << " peers, " << shape.heads << " x "
                                        << shape.head_dim << " " << Name(dtype));
      Merge(random, shape, dtype).Check();
    }
  }
}

}  // namespace
}  // namespace muster
