#include "worker/model/cpu/cpu_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/skinny_matmul.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

struct Product {
  Product(int64_t n, int64_t k, int rows, DType dtype)
      : x(rows * k), weights(n * k), halves(n * k), y(rows * n) {
    std::minstd_rand random(static_cast<uint32_t>(n * 31 + k * 7 + rows));
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& value : x) value = uniform(random);
    for (int64_t i = 0; i < n * k; ++i) {
      halves[i] = BFloat16(uniform(random));
      weights[i] = static_cast<float>(halves[i]);
    }
    matrix = {.data = weights.data(), .n = n, .k = k, .dtype = dtype};
    if (dtype == DType::kBFloat16) matrix.data = halves.data();
  }
  LinearParams params() { return {.x = x.data(), .weights = matrix, .y = y.data()}; }

  std::vector<float> x;
  std::vector<float> weights;
  std::vector<BFloat16> halves;
  std::vector<float> y;
  Matrix matrix;
};

// Sums in double of the products of the operands as they are multiplied; the error that float32
// sums of k terms may have is k epsilon times the sum of magnitudes.
void ExpectRight(const Product& product, int rows) {
  const auto [data, n, k, dtype] = product.matrix;
  for (int row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < n; ++column) {
      double sum = 0;
      double magnitude = 0;
      for (int64_t i = 0; i < k; ++i) {
        const float raw = product.x[row * k + i];
        const float x = dtype == DType::kBFloat16 ? static_cast<float>(BFloat16(raw)) : raw;
        const double term = double{x} * product.weights[column * k + i];
        sum += term;
        magnitude += std::abs(term);
      }
      const double tolerance = static_cast<double>(k) * 0x1p-24 * magnitude;
      ASSERT_NEAR(product.y[row * n + column], sum, tolerance)
          << "row " << row << " column " << column;
    }
  }
}

class CpuOpsTest : public ::testing::TestWithParam<int> {
 protected:
  CpuOpsTest() : device_({.threads = GetParam()}), ops_(device_, ledger_) {
    stream_ = *device_.CreateStream();
  }

  Ledger ledger_;
  CpuDevice device_;
  CpuOps ops_;
  std::unique_ptr<Stream> stream_;
};

TEST_P(CpuOpsTest, LinearIsRightForFewRowsAndMany) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& [n, k] : {std::pair(130, 96), std::pair(77, 33), std::pair(5, 64)}) {
      for (const int rows : {1, 2, 31, 32, 33, 64, 100, 128}) {
        SCOPED_TRACE(absl::StrCat(Name(dtype), " n ", n, " k ", k, " rows ", rows));
        Product product(n, k, rows, dtype);
        ASSERT_OK(ops_.Prepare(product.matrix, 128));
        ASSERT_OK(ops_.Linear(*stream_, product.params(), rows));
        ExpectRight(product, rows);
      }
    }
  }
}

TEST_P(CpuOpsTest, LinearAddsItsBiasOnceToEveryRow) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int rows : {1, 33, 64}) {
      SCOPED_TRACE(absl::StrCat(Name(dtype), " rows ", rows));
      Product product(77, 33, rows, dtype);
      ASSERT_OK(ops_.Prepare(product.matrix, 64));
      ASSERT_OK(ops_.Linear(*stream_, product.params(), rows));
      std::vector<float> expected = product.y;
      std::vector<float> bias(77);
      for (size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i) * 0.37f - 9;
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += bias[i % bias.size()];
      LinearParams params = product.params();
      params.bias = bias.data();
      ASSERT_OK(ops_.Linear(*stream_, params, rows));
      EXPECT_EQ(product.y, expected);
    }
  }
}

TEST_P(CpuOpsTest, LinearRefusesWhatWasNotPrepared) {
  Product product(8, 8, 4, DType::kFloat32);
  EXPECT_STATUS(ops_.Linear(*stream_, product.params(), 4), absl::StatusCode::kFailedPrecondition,
                "linear [4, 8] x [8, 8] was not prepared");
  ASSERT_OK(ops_.Prepare(product.matrix, 3));
  EXPECT_FALSE(ops_.Linear(*stream_, product.params(), 4).ok());
  EXPECT_OK(ops_.Linear(*stream_, product.params(), 3));
}

TEST_P(CpuOpsTest, PreparingIsChargedAsActivations) {
  Product product(128, 64, 1, DType::kBFloat16);
  ASSERT_OK(ops_.Prepare(product.matrix, 64));
  ASSERT_EQ(ledger_.Entries().size(), 1u);
  EXPECT_EQ(ledger_.Entries().front().tag, "activations");
  const uint64_t bytes = ledger_.total();
  EXPECT_GE(bytes, 64u * 64u * 2u);
  ASSERT_OK(ops_.Prepare(product.matrix, 64));
  EXPECT_EQ(ledger_.total(), bytes);
}

TEST_P(CpuOpsTest, GatherCopiesTheRowsThatTheIndexNamesWhenItRuns) {
  const std::vector<float> x = {0, 1, 10, 11, 20, 21};
  std::vector<int32_t> index = {0, 0};
  std::vector<float> out(4);
  const auto graph = device_.Capture(*stream_, [&] {
    return ops_.GatherRows(
        *stream_, {.x = x.data(), .index = index.data(), .hidden = 2, .out = out.data()}, 2);
  });
  ASSERT_OK(graph);
  index = {2, 1};
  ASSERT_OK((*graph)->Launch(*stream_));
  EXPECT_EQ(out, (std::vector<float>{20, 21, 10, 11}));
}

INSTANTIATE_TEST_SUITE_P(Threads, CpuOpsTest, ::testing::Values(1, 2, 3),
                         [](const auto& info) { return absl::StrCat("Of", info.param); });

}  // namespace
}  // namespace muster
