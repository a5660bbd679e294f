#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/cuda_status.h"
#include "kernels/skinny_matmul.h"
#include "tests/support/status_matchers.h"
#include "worker/device/cuda/cuda_stream.h"
#include "worker/device/cuda/cuda_test_kernels.h"
#include "worker/model/cuda/cuda_device_speed.h"
#include "worker/model/cuda/cuda_ops.h"

namespace muster {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
constexpr float kEpsilon = std::numeric_limits<float>::epsilon();

// Of one store of such a value: half of the last place, which below float16's normal numbers does
// not become smaller.
double RoundingOf(DType dtype, double value) {
  if (dtype == DType::kFloat16) return std::max(0x1p-11 * value, 0x1p-25);
  return (dtype == DType::kFloat32 ? 0x1p-24 : 0x1p-8) * value;
}

std::vector<std::byte> Encoded(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * SizeOf(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    std::byte* const to = bytes.data() + i * SizeOf(dtype);
    if (dtype == DType::kBFloat16) {
      new (to) BFloat16(values[i]);
    } else if (dtype == DType::kFloat16) {
      new (to) Float16(values[i]);
    } else {
      new (to) float(values[i]);
    }
  }
  return bytes;
}

std::vector<float> Decoded(const std::vector<std::byte>& bytes, DType dtype) {
  std::vector<float> values(bytes.size() / SizeOf(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    const std::byte* const from = bytes.data() + i * SizeOf(dtype);
    if (dtype == DType::kBFloat16) {
      values[i] = static_cast<float>(*reinterpret_cast<const BFloat16*>(from));
    } else if (dtype == DType::kFloat16) {
      values[i] = static_cast<float>(*reinterpret_cast<const Float16*>(from));
    } else {
      values[i] = *reinterpret_cast<const float*>(from);
    }
  }
  return values;
}

struct Case {
  int rows;
  int64_t n;
  int64_t k;
  DType dtype;
  DType y_dtype;
  bool bias;
};

class CudaOpsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(device_, CudaDevice::Create({}));
    ASSERT_OK_AND_ASSIGN(stream_, device_->CreateStream());
    ops_ = std::make_unique<CudaOps>(*device_, ledger_);
    const auto seed = std::random_device()();
    std::printf("seed %u\n", seed);
    random_.seed(seed);
  }

  std::vector<float> Random(int64_t count) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = uniform(random_);
    return values;
  }

  Buffer Upload(const std::vector<std::byte>& bytes) {
    Buffer gpu = *device_->Allocate(bytes.size() + 16, "test", ledger_);
    Buffer host = *device_->AllocateHost(bytes.size() + 16, "test", ledger_);
    std::memcpy(host.data(), bytes.data(), bytes.size());
    EXPECT_OK(device_->Copy(*stream_, gpu.data(), host.data(), bytes.size()));
    EXPECT_OK(stream_->Synchronize());
    return gpu;
  }

  std::vector<std::byte> Download(const void* from, size_t size) {
    Buffer host = *device_->AllocateHost(size, "test", ledger_);
    EXPECT_OK(device_->Copy(*stream_, host.data(), from, size));
    EXPECT_OK(stream_->Synchronize());
    return {host.as<std::byte>(), host.as<std::byte>() + size};
  }

  // The product that ops_ computes in a graph, and its reference, which is given the operands as
  // they were rounded.
  struct Result {
    std::vector<float> expected, actual, magnitudes;
  };
  Result Multiply(const Case& c, const std::vector<float>& x, const std::vector<float>& weights,
                  const std::vector<float>& bias, int max_rows) {
    const std::vector<std::byte> x_bytes = Encoded(x, c.dtype);
    const std::vector<std::byte> w_bytes = Encoded(weights, c.dtype);
    const Buffer gpu_x = Upload(x_bytes);
    const Buffer gpu_w = Upload(w_bytes);
    const Buffer gpu_bias = Upload(Encoded(bias, DType::kFloat32));
    const auto y_count = static_cast<size_t>(c.rows * c.n);
    const size_t y_bytes = y_count * SizeOf(c.y_dtype);
    const Buffer y = Upload(std::vector<std::byte>(y_bytes + 64, std::byte{0xFF}));
    const Matrix matrix{.data = gpu_w.data(), .n = c.n, .k = c.k, .dtype = c.dtype};
    EXPECT_OK(ops_->Prepare(matrix, max_rows));
    const LinearParams params{.x = gpu_x.data(),
                              .weights = matrix,
                              .bias = c.bias ? gpu_bias.as<float>() : nullptr,
                              .y = y.data(),
                              .y_dtype = c.y_dtype};
    const auto graph =
        device_->Capture(*stream_, [&] { return ops_->Linear(*stream_, params, c.rows); });
    EXPECT_OK(graph);
    if (graph.ok()) {
      EXPECT_OK((*graph)->Launch(*stream_));
    }
    EXPECT_OK(stream_->Synchronize());
    for (const std::byte guard : Download(y.as<std::byte>() + y_bytes, 64)) {
      EXPECT_EQ(guard, std::byte{0xFF}) << "written beyond y";
    }
    Result result;
    result.actual = Decoded(Download(y.data(), y_bytes), c.y_dtype);
    result.expected.resize(y_count);
    SkinnyMatmulParams reference{.x = x_bytes.data(),
                                 .x_row_stride = c.k,
                                 .weights = w_bytes.data(),
                                 .weights_row_stride = c.k,
                                 .dtype = c.dtype,
                                 .rows = c.rows,
                                 .k = c.k,
                                 .y = result.expected.data(),
                                 .y_row_stride = c.n,
                                 .x_dtype = c.dtype,
                                 .bias = c.bias ? bias.data() : nullptr};
    SkinnyMatmulReference(reference, {0, c.n});
    result.magnitudes =
        MagnitudesOf(reference, Decoded(x_bytes, c.dtype), Decoded(w_bytes, c.dtype), c.n);
    return result;
  }

  // Whether the word comes to `wanted` within a second; `seen` is host memory. Allocates none,
  // which could wait for all work on the GPU.
  bool HasCome(const Buffer& word, const Buffer& seen, int wanted) {
    const absl::Time deadline = absl::Now() + absl::Seconds(1);
    while (absl::Now() < deadline) {
      EXPECT_OK(device_->Copy(*stream_, seen.data(), word.data(), sizeof(uint32_t)));
      EXPECT_OK(stream_->Synchronize());
      if (*seen.as<uint32_t>() == static_cast<uint32_t>(wanted)) return true;
    }
    return false;
  }

  // Whether all that is enqueued does.
  bool EndsWithin(absl::Duration limit) {
    const absl::Time deadline = absl::Now() + limit;
    while (cudaStreamQuery(CudaDeviceStream::From(*stream_).get()) == cudaErrorNotReady) {
      if (absl::Now() > deadline) return false;
    }
    return true;
  }

  // Of each element of y, the sum of the magnitudes that it is the sum of.
  static std::vector<float> MagnitudesOf(SkinnyMatmulParams params, std::vector<float> x,
                                         std::vector<float> weights, int64_t n) {
    for (float& value : x) value = std::abs(value);
    for (float& value : weights) value = std::abs(value);
    std::vector<float> bias(n, 0);
    if (params.bias != nullptr) {
      for (int64_t i = 0; i < n; ++i) bias[i] = std::abs(params.bias[i]);
    }
    std::vector<float> magnitudes(static_cast<size_t>(params.rows * n));
    params.x = x.data();
    params.weights = weights.data();
    params.x_dtype = params.dtype = DType::kFloat32;
    params.bias = bias.data();
    params.y = magnitudes.data();
    SkinnyMatmulReference(params, {0, n});
    return magnitudes;
  }

  // Additions in any order, of which each rounds (tensor cores cut off) by an epsilon of what was
  // added up so far, k of them at most one after the other; y is rounded once, or before and after
  // the bias.
  void ExpectCloseToReference(const Case& c, int max_rows) {
    SCOPED_TRACE(::testing::Message() << c.rows << " x " << c.n << " x " << c.k << " "
                                      << Name(c.dtype) << " to " << Name(c.y_dtype));
    const Result result =
        Multiply(c, Random(c.rows * c.k), Random(c.n * c.k), Random(c.n), max_rows);
    for (size_t i = 0; i < result.expected.size(); ++i) {
      const double sums = static_cast<double>(c.k + 1) * kEpsilon * result.magnitudes[i];
      const double product = std::abs(result.expected[i]) + (c.bias ? 1.0 : 0.0);
      const double stores = (c.bias ? 2 : 1) * 1.001 * RoundingOf(c.y_dtype, product);
      ASSERT_NEAR(result.actual[i], result.expected[i], sums + stores) << "element " << i;
    }
  }

  std::unique_ptr<CudaDevice> device_;
  Ledger ledger_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<CudaOps> ops_;
  std::mt19937 random_;
};

TEST_F(CudaOpsTest, LinearMatchesReferenceForAnyNumberOfRows) {
  for (const DType dtype : kDTypes) {
    for (const int rows : {1, 7, 9, 31, 32, 33, 40, 64, 100, 129, 300}) {
      ExpectCloseToReference({rows, 160, 256, dtype, dtype, false}, 300);
      ExpectCloseToReference({rows, 104, 136, dtype, DType::kFloat32, true}, rows);
      ExpectCloseToReference({rows, 96, 512, dtype, dtype, true}, 512);
    }
  }
}

TEST_F(CudaOpsTest, LinearMatchesReferenceForOddShapes) {
  for (const DType dtype : kDTypes) {
    for (const int rows : {1, 5, 50}) {
      for (const int64_t k : {1, 7, 36, 65, 250}) {
        ExpectCloseToReference({rows, 33, k, dtype, dtype, rows == 5}, 64);
        ExpectCloseToReference({rows, 1, k, dtype, DType::kFloat32, false}, 64);
      }
    }
  }
}

// Odd integers of 12 bits and their sums are exact in float32, and not in TF32.
TEST_F(CudaOpsTest, Float32IsNotRoundedToFewerBits) {
  for (const int rows : {1, 8, 9, 64, 256}) {
    const Case c{rows, 128, 512, DType::kFloat32, DType::kFloat32, false};
    std::vector<float> x(c.rows * c.k);
    std::vector<float> weights(c.n * c.k);
    for (float& value : x) value = static_cast<float>(2 * (random_() % 2048) + 2049);
    for (float& value : weights) value = static_cast<float>(random_() % 3) - 1;
    const Result result = Multiply(c, x, weights, std::vector<float>(c.n), rows);
    for (size_t i = 0; i < result.expected.size(); ++i) {
      ASSERT_EQ(result.actual[i], result.expected[i]) << rows << " rows, element " << i;
    }
  }
}

// Three of the four ranks of a GPU wait in a collective for the fourth, and hold what they run on.
TEST_F(CudaOpsTest, ProductsGoOnWhileTheOtherRanksOfTheGpuWait) {
  ASSERT_OK_AND_ASSIGN(const auto shared, CudaDevice::Create({.ranks_on_gpu = 4}));
  ASSERT_OK_AND_ASSIGN(const auto others, shared->CreateStream());
  CudaOps ops(*shared, ledger_);
  const Buffer go = *shared->AllocateHost(sizeof(uint32_t), "test", ledger_);
  const Buffer arrived = *shared->Allocate(sizeof(uint32_t), "test", ledger_);
  const Buffer seen = *shared->AllocateHost(sizeof(uint32_t), "test", ledger_);
  const std::pair<int64_t, int64_t> shapes[] = {{384, 512},  {512, 256},   {576, 512},  {512, 288},
                                                {256, 1152}, {1536, 4096}, {4096, 1024}};
  for (const auto& [n, k] : shapes) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
      for (const int rows : {32, 64, 128, 256, 1024}) {
        const Buffer x = Upload(std::vector<std::byte>(rows * k * SizeOf(dtype)));
        const Buffer w = Upload(std::vector<std::byte>(n * k * SizeOf(dtype)));
        const Buffer y = Upload(std::vector<std::byte>(rows * n * SizeOf(dtype)));
        const Matrix matrix{.data = w.data(), .n = n, .k = k, .dtype = dtype};
        ASSERT_OK(ops.Prepare(matrix, rows));
        const auto multiply = [&] {
          return ops.Linear(
              *stream_, {.x = x.data(), .weights = matrix, .y = y.data(), .y_dtype = dtype}, rows);
        };
        ASSERT_OK(multiply());  // loads its kernels
        ASSERT_OK(stream_->Synchronize());
        *go.as<volatile uint32_t>() = 0;
        cudaMemset(arrived.data(), 0, sizeof(uint32_t));
        cudaDeviceSynchronize();
        ASSERT_OK(
            CudaStatus(testing::HoldThreeQuartersCuda(go.as<uint32_t>(), arrived.as<uint32_t>(),
                                                      CudaDeviceStream::From(*others).get()),
                       "holding"));
        ASSERT_TRUE(HasCome(arrived, seen, shared->multiprocessor_budget())) << "nothing is held";
        EXPECT_OK(multiply());
        const bool done = EndsWithin(absl::Seconds(1));
        *go.as<volatile uint32_t>() = 1;
        EXPECT_OK(others->Synchronize());
        EXPECT_OK(stream_->Synchronize());
        EXPECT_TRUE(done) << rows << " x " << n << " x " << k << " " << Name(dtype);
      }
    }
  }
}

TEST_F(CudaOpsTest, LinearIsTheSameFromRunToRun) {
  for (const int rows : {4, 24, 200}) {
    const Case c{rows, 1024, 2048, DType::kBFloat16, DType::kBFloat16, false};
    const std::vector<float> x = Random(c.rows * c.k);
    const std::vector<float> weights = Random(c.n * c.k);
    const std::vector<float> bias(c.n);
    const std::vector<float> first = Multiply(c, x, weights, bias, rows).actual;
    EXPECT_EQ(Multiply(c, x, weights, bias, rows).actual, first) << rows << " rows";
  }
}

TEST_F(CudaOpsTest, MisalignedOperandsAreMultipliedToo) {
  const int64_t n = 64, k = 128, rows = 48;
  const std::vector<float> x = Random(rows * k + 1);
  const std::vector<float> weights = Random(n * k + 1);
  const std::vector<std::byte> x_bytes = Encoded(x, DType::kBFloat16);
  const std::vector<std::byte> w_bytes = Encoded(weights, DType::kBFloat16);
  const Buffer gpu_x = Upload(x_bytes);
  const Buffer gpu_w = Upload(w_bytes);
  const Buffer y = Upload(std::vector<std::byte>(rows * n * 4));
  const Matrix matrix{gpu_w.as<BFloat16>() + 1, n, k, DType::kBFloat16};
  ASSERT_OK(ops_->Prepare(matrix, rows));
  ASSERT_OK(ops_->Linear(*stream_,
                         {.x = gpu_x.as<BFloat16>() + 1, .weights = matrix, .y = y.data()}, rows));
  const std::vector<float> actual = Decoded(Download(y.data(), rows * n * 4), DType::kFloat32);
  std::vector<float> expected(rows * n);
  SkinnyMatmulReference({.x = x_bytes.data() + 2,
                         .x_row_stride = k,
                         .weights = w_bytes.data() + 2,
                         .weights_row_stride = k,
                         .dtype = DType::kBFloat16,
                         .rows = rows,
                         .k = k,
                         .y = expected.data(),
                         .y_row_stride = n},
                        {0, n});
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 1e-4) << i;
}

TEST_F(CudaOpsTest, WhatWasNotPreparedIsRefused) {
  const Matrix matrix{.n = 8, .k = 8, .dtype = DType::kBFloat16};
  EXPECT_STATUS(ops_->Linear(*stream_, {.weights = matrix}, 1),
                absl::StatusCode::kFailedPrecondition, "was not prepared");
  ASSERT_OK(ops_->Prepare(matrix, 4));
  EXPECT_STATUS(ops_->Linear(*stream_, {.weights = matrix}, 5),
                absl::StatusCode::kFailedPrecondition, "was not prepared");
}

TEST_F(CudaOpsTest, CandidatesOfMoreShardsThanOneLaunchTakes) {
  constexpr int kShards = 70;
  constexpr int64_t kVocab = 5000;
  constexpr int64_t kCandidates = 5;
  const std::vector<float> logits = Random(kShards * kVocab);
  const Buffer gpu_logits = Upload(Encoded(logits, DType::kFloat32));
  const Buffer candidates = Upload(std::vector<std::byte>(kShards * kCandidates * 8));
  const Buffer counts = Upload(std::vector<std::byte>(kShards * 8));
  const Buffer summaries = Upload(std::vector<std::byte>(kShards * sizeof(LogitSummary)));
  ASSERT_OK(ops_->Prepare({.n = 8, .k = 8, .dtype = DType::kBFloat16}, 1));
  std::vector<ShardTopKParams> shards;
  for (int i = 0; i < kShards; ++i) {
    shards.push_back({.logits = gpu_logits.as<float>() + i * kVocab,
                      .vocab_local = kVocab,
                      .vocab_begin = i,
                      .k = kCandidates,
                      .inverse_temperature = 1,
                      .candidates = candidates.as<Candidate>() + i * kCandidates,
                      .candidate_count = counts.as<int64_t>() + i,
                      .summary = summaries.as<LogitSummary>() + i});
  }
  ASSERT_OK(ops_->ShardTopK(*stream_, shards));
  std::vector<Candidate> actual(kShards * kCandidates);
  std::memcpy(actual.data(), Download(candidates.data(), actual.size() * 8).data(),
              actual.size() * 8);
  for (int i = 0; i < kShards; ++i) {
    std::vector<Candidate> expected(kCandidates);
    int64_t count = 0;
    LogitSummary summary;
    ShardTopKParams reference = shards[i];
    reference.logits = logits.data() + i * kVocab;
    reference.candidates = expected.data();
    reference.candidate_count = &count;
    reference.summary = &summary;
    ShardTopKReference(reference);
    for (int64_t j = 0; j < kCandidates; ++j) {
      ASSERT_EQ(actual[i * kCandidates + j].id, expected[j].id) << "shard " << i;
    }
  }
}

TEST_F(CudaOpsTest, TooManyCandidatesAreRefused) {
  const ShardTopKParams shard{.vocab_local = 1000, .k = kMaxCudaCandidates + 1};
  EXPECT_STATUS(ops_->ShardTopK(*stream_, {&shard, 1}), absl::StatusCode::kInvalidArgument,
                "the 257 best of 1000 logits");
}

TEST_F(CudaOpsTest, SpeedIsMeasured) {
  for (const DType dtype : kDTypes) {
    ASSERT_OK_AND_ASSIGN(const DeviceSpeed speed, MeasureCuda(*device_, dtype));
    std::printf("%s: reads %.0f GB/s, multiplies %.1f TFLOP/s\n", Name(dtype),
                speed.read_bytes_per_second * 1e-9, speed.matrix_flops_per_second * 1e-12);
    EXPECT_GT(speed.read_bytes_per_second, 1e11);
    EXPECT_GT(speed.matrix_flops_per_second, 1e12);
  }
}

}  // namespace
}  // namespace muster
