#include "kernels/rms_norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <vector>

#include "kernels/add_rms_norm.h"
#include "kernels/all_reduce_rms_norm.h"
#include "kernels/kernel_test_support.h"
#include "kernels/reduce_ranks.h"

namespace muster {
namespace {

using ::muster::testing::AllClose;
using ::muster::testing::AllSame;
using ::muster::testing::ForEachTarget;
using ::muster::testing::kEpsilon;
using ::muster::testing::kInfinity;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;
using ::muster::testing::TestArray;
using ::muster::testing::TypedArray;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
constexpr size_t kHiddens[] = {1, 3, 16, 63, 64, 65, 511, 512, 513, 576, 1100};
constexpr float kEps = 1e-5f;
constexpr int64_t kRows = 3;

// A quarter of the squares is added in a row in either of four accumulators; the root halves the
// relative error. A few more roundings follow.
double RelativeTolerance(size_t hidden) { return (static_cast<double>(hidden) / 8 + 8) * kEpsilon; }

auto NormTolerance(const TestArray<float>& expected, size_t hidden) {
  return [&expected, hidden](size_t i) {
    return RelativeTolerance(hidden) * std::abs(expected[i]) + 1e-37;
  };
}

// Half an ulp of the widest narrow type.
double Rounding(DType dtype) {
  return dtype == DType::kFloat32 ? 0 : dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}

TEST(RmsNormTest, MatchesReferenceForEverySize) {
  ForEachTarget([] {
    for (const size_t hidden : kHiddens) {
      for (const size_t misalignment : {0, 1, 5}) {
        SCOPED_TRACE(::testing::Message() << hidden << " off by " << misalignment);
        RandomFloats random(3);
        TestArray<float> x(kRows * hidden, misalignment);
        TestArray<float> weight(hidden, misalignment);
        random.Fill(x, -3, 3);
        random.Fill(weight);
        TestArray<float> expected(x.size());
        TestArray<float> actual(x.size(), misalignment);
        const int64_t size = static_cast<int64_t>(hidden);
        RmsNormReference({x.data(), weight.data(), kEps, size, expected.data()}, {0, kRows});
        RmsNormCpu({x.data(), weight.data(), kEps, size, actual.data()}, {0, kRows});
        EXPECT_TRUE(
            AllClose(expected.data(), actual.data(), x.size(), NormTolerance(expected, hidden)));
        RmsNormCpu({x.data(), weight.data(), kEps, size, x.data()}, {0, kRows});
        EXPECT_TRUE(AllSame(actual.data(), x.data(), x.size())) << "in place";
      }
    }
  });
}

TEST(RmsNormTest, ZeroRowStaysZeroAndNaNShows) {
  ForEachTarget([] {
    TestArray<float> x(2 * 40);
    TestArray<float> weight(40);
    std::fill(x.begin(), x.begin() + 40, 0.0f);
    std::fill(x.begin() + 40, x.end(), 1.0f);
    std::fill(weight.begin(), weight.end(), 1.0f);
    x[79] = kNaN;
    RmsNormCpu({x.data(), weight.data(), kEps, 40, x.data()}, {0, 2});
    for (size_t i = 0; i < 40; ++i) EXPECT_EQ(x[i], 0.0f);
    for (size_t i = 40; i < 80; ++i) EXPECT_TRUE(std::isnan(x[i]));
  });
}

// The ranks' partial sums and everything else that a fused reduction takes.
struct Fixture {
  Fixture(int world, size_t hidden, DType dtype, DType residual_dtype, size_t misalignment = 0)
      : hidden(static_cast<int64_t>(hidden)),
        residual(residual_dtype, kRows * hidden, misalignment),
        weight(hidden, misalignment) {
    RandomFloats random(static_cast<uint32_t>(world));
    for (int rank = 0; rank < world; ++rank) {
      parts.emplace_back(dtype, kRows * hidden, misalignment);
      random.Fill(parts.back());
    }
    random.Fill(residual, -2, 2);
    random.Fill(weight, 0.5f, 1.5f);
  }

  ReduceRanksParams Reduce(TypedArray& out) {
    ReduceRanksParams params{};
    for (size_t i = 0; i < parts.size(); ++i) params.parts[i] = parts[i].data();
    params.world = static_cast<int32_t>(parts.size());
    params.dtype = parts[0].dtype();
    params.out = out.data();
    params.out_dtype = out.dtype();
    return params;
  }

  AllReduceRmsNormParams Fuse(TypedArray* residual_out, TypedArray& norm_out) {
    AllReduceRmsNormParams params{};
    for (size_t i = 0; i < parts.size(); ++i) params.parts[i] = parts[i].data();
    params.world = static_cast<int32_t>(parts.size());
    params.dtype = parts[0].dtype();
    params.residual_in = residual.data();
    params.residual_out = residual_out != nullptr ? residual_out->data() : nullptr;
    params.residual_dtype = residual.dtype();
    params.weight = weight.data();
    params.eps = kEps;
    params.hidden = hidden;
    params.norm_out = norm_out.data();
    params.norm_dtype = norm_out.dtype();
    return params;
  }

  int64_t hidden;
  std::vector<TypedArray> parts;
  TypedArray residual;
  TestArray<float> weight;
};

TestArray<float> Floats(const TypedArray& array) {
  TestArray<float> floats(array.size());
  for (size_t i = 0; i < array.size(); ++i) floats[i] = array.Get(i);
  return floats;
}

void ExpectSame(const TypedArray& expected, const TypedArray& actual) {
  EXPECT_TRUE(AllSame(Floats(expected).data(), Floats(actual).data(), expected.size()));
}

TEST(ReduceRanksTest, GivesTheBitsOfTheReferenceForEveryWorldAndType) {
  ForEachTarget([] {
    for (int world = 1; world <= kMaxReduceRanks; ++world) {
      for (const DType dtype : kDTypes) {
        for (const DType out_dtype : kDTypes) {
          SCOPED_TRACE(::testing::Message()
                       << world << " x " << Name(dtype) << " to " << Name(out_dtype));
          Fixture fixture(world, 211, dtype, DType::kFloat32, static_cast<size_t>(world % 3));
          const size_t size = fixture.parts[0].size();
          TypedArray expected(out_dtype, size);
          TypedArray actual(out_dtype, size, 1);
          ReduceRanksReference(fixture.Reduce(expected), {0, static_cast<int64_t>(size)});
          ReduceRanksCpu(fixture.Reduce(actual), {0, 5});
          ReduceRanksCpu(fixture.Reduce(actual), {5, static_cast<int64_t>(size)});
          ExpectSame(expected, actual);
        }
      }
    }
  });
}

TEST(ReduceRanksTest, WritesOverAnyOfItsParts) {
  ForEachTarget([] {
    for (const DType dtype : kDTypes) {
      for (size_t rank = 0; rank < 3; ++rank) {
        Fixture fixture(3, 100, dtype, DType::kFloat32);
        TypedArray expected(dtype, 300);
        ReduceRanksCpu(fixture.Reduce(expected), {0, 300});
        ReduceRanksCpu(fixture.Reduce(fixture.parts[rank]), {0, 300});
        ExpectSame(expected, fixture.parts[rank]);
      }
    }
  });
}

TEST(ReduceRanksTest, AddsSpecialValuesAsIeeeDoes) {
  ForEachTarget([] {
    const float cases[][3] = {
        {-0.0f, -0.0f, -0.0f},        {-0.0f, 0.0f, 0.0f},           {1e-45f, 0.0f, 1e-45f},
        {kInfinity, 1.0f, kInfinity}, {kInfinity, -kInfinity, kNaN}, {kNaN, 1.0f, kNaN},
        {1e-45f, -1e-45f, 0.0f},      {3e38f, 3e38f, kInfinity},
    };
    for (const auto& [left, right, sum] : cases) {
      TypedArray a(DType::kFloat32, 70);
      TypedArray b(DType::kFloat32, 70);
      TypedArray out(DType::kFloat32, 70);
      for (size_t i = 0; i < 70; ++i) a.Set(i, left), b.Set(i, right);
      ReduceRanksParams params{};
      params.parts[0] = a.data();
      params.parts[1] = b.data();
      params.world = 2;
      params.out = out.data();
      ReduceRanksCpu(params, {0, 70});
      for (const size_t i : {0, 69}) {
        const float actual = out.Get(i);
        EXPECT_TRUE(AllSame(&sum, &actual, 1)) << left << " + " << right;
      }
    }
  });
}

TEST(ReduceRanksTest, ConvertsEveryNarrowValueExactly) {
  ForEachTarget([] {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      TypedArray all(dtype, 65536);
      for (size_t i = 0; i < 65536; ++i) static_cast<uint16_t*>(all.data())[i] = uint16_t(i);
      TypedArray wide(DType::kFloat32, 65536);
      TypedArray back(dtype, 65536);
      ReduceRanksParams params{};
      params.parts[0] = all.data();
      params.world = 1;
      params.dtype = dtype;
      params.out = wide.data();
      params.out_dtype = DType::kFloat32;
      ReduceRanksCpu(params, {0, 65536});
      ExpectSame(all, wide);
      params.parts[0] = wide.data();
      params.dtype = DType::kFloat32;
      params.out = back.data();
      params.out_dtype = dtype;
      ReduceRanksCpu(params, {0, 65536});
      ExpectSame(all, back);
    }
  });
}

TEST(ReduceRanksTest, RoundsEveryFloatAsTheReferenceDoes) {
  ForEachTarget([] {
    RandomFloats random(8);
    TypedArray wide(DType::kFloat32, 50000);
    for (size_t i = 0; i < wide.size(); ++i) {  // every exponent
      wide.Set(i, std::ldexp(random.Uniform(-2, 2), static_cast<int>(random.Integer(-149, 127))));
    }
    const uint32_t specials[] = {0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000, 0x7F7FFFFF,
                                 0x80000000, 0x00000001, 0x33000000, 0x33000001, 0x477FEFFF};
    for (size_t i = 0; i < std::size(specials); ++i) wide.Set(i, std::bit_cast<float>(specials[i]));
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      TypedArray expected(dtype, wide.size());
      TypedArray actual(dtype, wide.size());
      ReduceRanksParams params{};
      params.parts[0] = wide.data();
      params.world = 1;
      params.out_dtype = dtype;
      params.out = expected.data();
      ReduceRanksReference(params, {0, 50000});
      params.out = actual.data();
      ReduceRanksCpu(params, {0, 50000});
      ExpectSame(expected, actual);
    }
  });
}

TEST(AllReduceRmsNormTest, MatchesReferenceForEveryWorldAndType) {
  ForEachTarget([] {
    for (const int world : {1, 2, 3, 7, 16}) {
      for (const DType dtype : kDTypes) {
        for (const DType residual : kDTypes) {
          for (const DType norm : kDTypes) {
            SCOPED_TRACE(::testing::Message() << world << " x " << Name(dtype) << ", residual "
                                              << Name(residual) << ", norm " << Name(norm));
            Fixture fixture(world, 531, dtype, residual, 1);
            TypedArray expected_residual(residual, kRows * 531);
            TypedArray expected(norm, kRows * 531);
            TypedArray actual_residual(residual, kRows * 531, 3);
            TypedArray actual(norm, kRows * 531, 1);
            AllReduceRmsNormReference(fixture.Fuse(&expected_residual, expected), {0, kRows});
            AllReduceRmsNormCpu(fixture.Fuse(&actual_residual, actual), {0, kRows});
            ExpectSame(expected_residual, actual_residual);
            const TestArray<float> wanted = Floats(expected);
            EXPECT_TRUE(
                AllClose(wanted.data(), Floats(actual).data(), wanted.size(), [&](size_t i) {
                  return (RelativeTolerance(531) + 2 * Rounding(norm)) * std::abs(wanted[i]) +
                         0x1p-25;
                }));
          }
        }
      }
    }
  });
}

TEST(AllReduceRmsNormTest, OptionalArraysAndPlacesChangeNoBits) {
  ForEachTarget([] {
    for (const DType norm_dtype : kDTypes) {
      for (const DType residual_dtype : kDTypes) {
        Fixture fixture(3, 1100, DType::kFloat32, residual_dtype);
        TypedArray residual(residual_dtype, kRows * 1100);
        TypedArray norm(norm_dtype, kRows * 1100);
        AllReduceRmsNormCpu(fixture.Fuse(&residual, norm), {0, kRows});

        TypedArray alone(norm_dtype, kRows * 1100);
        for (int64_t row = 0; row < kRows; ++row) {
          AllReduceRmsNormCpu(fixture.Fuse(nullptr, alone), {row, row + 1});
        }
        ExpectSame(norm, alone);

        TypedArray in_place(norm_dtype, kRows * 1100);
        AllReduceRmsNormCpu(fixture.Fuse(&fixture.residual, in_place), {0, kRows});
        ExpectSame(norm, in_place);
        ExpectSame(residual, fixture.residual);
      }
    }
  });
}

TEST(AllReduceRmsNormTest, WithoutResidualTheSumIsTheResidual) {
  ForEachTarget([] {
    Fixture fixture(2, 70, DType::kFloat32, DType::kFloat32);
    TypedArray residual(DType::kFloat32, kRows * 70);
    TypedArray norm(DType::kFloat32, kRows * 70);
    AllReduceRmsNormParams params = fixture.Fuse(&residual, norm);
    params.residual_in = nullptr;
    AllReduceRmsNormCpu(params, {0, kRows});
    TypedArray sum(DType::kFloat32, kRows * 70);
    ReduceRanksCpu(fixture.Reduce(sum), {0, kRows * 70});
    ExpectSame(sum, residual);
  });
}

TEST(AddRmsNormTest, AfterReduceRanksGivesTheBitsOfTheFusedKernel) {
  ForEachTarget([] {
    for (const size_t hidden : kHiddens) {
      for (const int world : {1, 2, 5}) {
        for (const bool with_residual : {true, false}) {
          SCOPED_TRACE(::testing::Message() << hidden << ", world " << world);
          Fixture fixture(world, hidden, DType::kFloat32, DType::kFloat32);
          TypedArray fused_residual(DType::kFloat32, kRows * hidden);
          TypedArray fused(DType::kFloat32, kRows * hidden);
          AllReduceRmsNormParams params = fixture.Fuse(&fused_residual, fused);
          if (!with_residual) params.residual_in = nullptr;
          AllReduceRmsNormCpu(params, {0, kRows});

          TypedArray sum(DType::kFloat32, kRows * hidden);
          ReduceRanksCpu(fixture.Reduce(sum), {0, static_cast<int64_t>(kRows * hidden)});
          TestArray<float> residual(kRows * hidden);
          TestArray<float> out(kRows * hidden);
          AddRmsNormCpu(
              {static_cast<float*>(sum.data()), static_cast<const float*>(params.residual_in),
               fixture.weight.data(), kEps, fixture.hidden, residual.data(), out.data()},
              {0, kRows});
          EXPECT_TRUE(AllSame(Floats(fused).data(), out.data(), out.size()));
          EXPECT_TRUE(AllSame(Floats(fused_residual).data(), residual.data(), residual.size()));
        }
      }
    }
  });
}

TEST(AddRmsNormTest, MatchesReferenceAndWorksInPlace) {
  ForEachTarget([] {
    for (const size_t hidden : kHiddens) {
      RandomFloats random(9);
      TestArray<float> a(kRows * hidden, 1);
      TestArray<float> residual(kRows * hidden, 2);
      TestArray<float> weight(hidden, 3);
      random.Fill(a);
      random.Fill(residual);
      random.Fill(weight);
      TestArray<float> expected_residual(a.size());
      TestArray<float> expected(a.size());
      AddRmsNormParams params{a.data(),
                              residual.data(),
                              weight.data(),
                              kEps,
                              static_cast<int64_t>(hidden),
                              expected_residual.data(),
                              expected.data()};
      AddRmsNormReference(params, {0, kRows});
      params.residual_out = residual.data();
      params.out = a.data();
      AddRmsNormCpu(params, {0, kRows});
      EXPECT_TRUE(AllSame(expected_residual.data(), residual.data(), a.size()));
      EXPECT_TRUE(AllClose(expected.data(), a.data(), a.size(), NormTolerance(expected, hidden)));
    }
  });
}

}  // namespace
}  // namespace muster
