#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cp_combine.h"
#include "kernels/lse_merge.h"
#include "kernels/peer_test_support.h"

namespace muster {
namespace {

using testing::CudaCheck;
using testing::DeviceBytes;
using testing::kInfinity;
using testing::kNaN;
using testing::LocalPeers;
using testing::RandomFloats;
using testing::TypedArray;

struct Shape {
  int64_t rows;
  int heads, head_dim;
  DType dtype = DType::kFloat32;
  size_t misalignment = 0;

  int64_t width() const { return int64_t{heads} * head_dim; }
};

// A combine with random operands: some ranks without keys in some heads, some heads without any.
class Combine {
 public:
  Combine(int world, const Shape& shape, uint32_t seed) : shape_(shape), world_(world) {
    RandomFloats random(seed);
    for (int rank = 0; rank < world; ++rank) {
      partials_.emplace_back(shape.dtype, static_cast<size_t>(shape.rows * shape.width()));
      random.Fill(partials_.back(), -3, 3);
      lse_.emplace_back(static_cast<size_t>(shape.rows * shape.heads));
      for (size_t i = 0; i < lse_.back().size(); ++i) {
        lse_.back()[i] = random.Uniform(-20, 20);
        const bool nobody = i % 7 == 3;
        if (!nobody && random.Integer(0, 3) != 0) continue;
        lse_.back()[i] = -kInfinity;
        for (int j = 0; j < shape.head_dim; ++j) {
          partials_.back().Set(i * shape.head_dim + j, kNaN);
        }
      }
    }
    Upload();
  }

  void LaunchAll(const LocalPeers& peers) const {
    for (int rank = 0; rank < world_; ++rank) {
      const CpCombineCudaParams params{.peers = peers.For(rank),
                                       .stamp = {.what = 8,
                                                 .rows = static_cast<uint32_t>(shape_.rows),
                                                 .row_bytes = static_cast<uint32_t>(shape_.heads)},
                                       .partial = device_partials_[rank]->data(),
                                       .lse = device_lse_[rank]->as<float>(),
                                       .out = outs_[rank]->data(),
                                       .heads = shape_.heads,
                                       .head_dim = shape_.head_dim,
                                       .dtype = shape_.dtype};
      const CudaLaunch launch = CpCombineCuda(params, shape_.rows, peers.stream(rank));
      CudaCheck(static_cast<cudaError_t>(launch.error), "launch");
    }
  }

  // An exponential is off by the roundings of its argument, up to 40 here, and by 2 of its own;
  // each sum by one a rank; the quotient and the store by one each.
  void Check() const {
    const int64_t slice = shape_.width() / world_;
    for (int rank = 0; rank < world_; ++rank) {
      std::vector<float> wanted(static_cast<size_t>(shape_.rows * slice));
      std::vector<float> magnitude(wanted.size());
      Reference(rank, slice, partials_, wanted.data());
      Reference(rank, slice, Magnitudes(), magnitude.data());
      const std::vector<float> got = testing::ToHost(*outs_[rank], shape_.dtype);
      const double relative = 2 * (42 + 2 * world_ + 2) * 0x1p-24;
      EXPECT_TRUE(testing::AllClose(
          wanted.data(), got.data(), wanted.size(),
          [&](size_t i) {
            const double tiny = shape_.dtype == DType::kFloat16 ? 0x1p-24 : 0x1p-126;
            return relative * magnitude[i] +
                   1.01 * testing::RoundingOf(shape_.dtype) * std::abs(double{wanted[i]}) + tiny;
          }))
          << "rank " << rank;
      EXPECT_TRUE(outs_[rank]->GuardsIntact());
    }
  }

 private:
  void Upload() {
    const size_t width = SizeOf(shape_.dtype), off = shape_.misalignment;
    for (int rank = 0; rank < world_; ++rank) {
      device_partials_.push_back(std::make_unique<DeviceBytes>(
          partials_[rank].data(), partials_[rank].size() * width, off * width));
      device_lse_.push_back(
          std::make_unique<DeviceBytes>(lse_[rank].data(), lse_[rank].size() * 4, off * 4));
      outs_.push_back(std::make_unique<DeviceBytes>(
          static_cast<size_t>(shape_.rows * shape_.width() / world_) * width, off * width));
    }
  }
  std::vector<TypedArray> Magnitudes() const {
    std::vector<TypedArray> result;
    for (const TypedArray& partial : partials_) {
      result.emplace_back(shape_.dtype, partial.size());
      for (size_t i = 0; i < partial.size(); ++i) result.back().Set(i, std::abs(partial.Get(i)));
    }
    return result;
  }
  void Reference(int rank, int64_t slice, const std::vector<TypedArray>& from, float* out) const {
    std::vector<std::vector<float>> parts;
    LseMergeParams params{.part_row_stride = shape_.width(),
                          .part_column = 0,
                          .lse_row_stride = shape_.heads,
                          .world = world_,
                          .head_dim = shape_.head_dim,
                          .columns = {slice * rank, slice * (rank + 1)},
                          .out = out,
                          .out_row_stride = slice};
    for (const TypedArray& part : from) {
      parts.emplace_back(part.size());
      for (size_t i = 0; i < part.size(); ++i) parts.back()[i] = part.Get(i);
    }
    for (int peer = 0; peer < world_; ++peer) {
      params.parts[peer] = parts[peer].data();
      params.lse[peer] = lse_[peer].data();
    }
    LseMergeReference(params, {0, shape_.rows});
  }

  const Shape shape_;
  const int world_;
  std::vector<TypedArray> partials_;
  std::vector<std::vector<float>> lse_;
  std::vector<std::unique_ptr<DeviceBytes>> device_partials_, device_lse_, outs_;
};

class CpCombineCudaTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, CpCombineCudaTest, ::testing::Values(2, 3, 4, 5, 8, 16));

TEST_P(CpCombineCudaTest, LeavesThisRanksSliceOfTheMergedHeads) {
  const int world = GetParam();
  LocalPeers peers(world, {});
  const uint32_t seed = std::random_device()();
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    // Slices that are whole heads, parts of heads, neither, and of single elements.
    for (const Shape& shape : {Shape{1, world, 128, dtype},
                               {70, 2 * world, 64, dtype},
                               {5, 2, 8 * world, dtype},
                               {3, 3, 5 * world, dtype},
                               {2, world, 1, dtype},
                               {4, 1, world, dtype},
                               {7, 16, 8 * world, dtype, 1},
                               {3, 32 * world, 8, dtype}}) {
      SCOPED_TRACE(::testing::Message()
                   << world << " ranks, " << shape.rows << " x " << shape.heads << " x "
                   << shape.head_dim << " " << Name(dtype) << ", seed " << seed);
      const Combine one(world, shape, seed);
      one.LaunchAll(peers);
      one.LaunchAll(peers);
      peers.Synchronize();
      one.Check();
      ASSERT_EQ(peers.fault(0).failed_operations, 0u);
    }
  }
  EXPECT_TRUE(peers.BoxesAreEmpty());
}

}  // namespace
}  // namespace muster
