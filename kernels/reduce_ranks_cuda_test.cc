#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "kernels/elementwise_cuda_test_support.h"
#include "kernels/reduce_ranks.h"

namespace muster {
namespace {

using ::muster::testing::AllSame;
using ::muster::testing::CudaFinish;
using ::muster::testing::DeviceBytes;
using ::muster::testing::FillWithSpecials;
using ::muster::testing::FreshSeed;
using ::muster::testing::kDTypes;
using ::muster::testing::RandomFloats;
using ::muster::testing::TypedArray;

struct Case {
  int summands;
  size_t count;
  size_t misalignment;
  bool in_place;
};

// The order is what is specified: the bits are those of the reference.
void ExpectReference(RandomFloats& random, const Case& one, DType dtype, DType out_dtype) {
  SCOPED_TRACE(::testing::Message() << one.summands << " of " << one.count << " " << Name(dtype)
                                    << " to " << Name(out_dtype) << " off by " << one.misalignment
                                    << (one.in_place ? " in place" : ""));
  std::vector<TypedArray> parts;

  std::vector<std::unique_ptr<DeviceBytes>> owned;
  TypedArray expected(out_dtype, one.count);
  ReduceRanksParams params{.parts = {},
                           .world = one.summands,
                           .dtype = dtype,
                           .out = expected.data(),
                           .out_dtype = out_dtype};
  for (int i = 0; i < one.summands; ++i) {
    TypedArray& part = parts.emplace_back(dtype, one.count);
    FillWithSpecials(random, part, 100.0f);
  }
  for (int i = 0; i < one.summands; ++i) params.parts[i] = parts[i].data();
  ReduceRanksReference(params, {0, static_cast<int64_t>(one.count)});
  const size_t bytes = one.count * SizeOf(dtype);
  for (int i = 0; i < one.summands; ++i) {
    owned.push_back(
        std::make_unique<DeviceBytes>(parts[i].data(), bytes, one.misalignment * SizeOf(dtype)));
    params.parts[i] = owned.back()->data();
  }
  DeviceBytes apart(one.count * SizeOf(out_dtype), one.misalignment * SizeOf(out_dtype));
  DeviceBytes& out = one.in_place ? *owned.back() : apart;
  params.out = out.data();
  CudaFinish(ReduceRanksCuda(params, static_cast<int64_t>(one.count), nullptr));
  EXPECT_TRUE(AllSame(expected, out));
}

TEST(ReduceRanksCudaTest, HasTheBitsOfTheReferenceForAnyNumberOfSummandsAndSize) {
  const uint32_t seed = FreshSeed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  RandomFloats random(seed);
  for (DType dtype : kDTypes) {
    for (int summands : {1, 2, 3, 5, 16, kMaxReduceRanks + 1}) {
      for (size_t count : {1, 7, 8, 2049, 100003}) {
        ExpectReference(random, {summands, count, count % 3, false}, dtype, dtype);
        ExpectReference(random, {summands, count, 0, true}, dtype, dtype);
      }
      ExpectReference(random, {summands, 999, 0, false}, dtype, DType::kFloat32);
    }
  }
}

}  // namespace
}  // namespace muster
