#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda_test_support.h"
#include "kernels/kernel_test_support.h"
#include "kernels/lse_merge.h"
#include "kernels/paged_attention.h"

namespace muster {
namespace {

using ::muster::testing::AllClose;
using ::muster::testing::AllSame;
using ::muster::testing::CudaFinish;
using ::muster::testing::DeviceBytes;
using ::muster::testing::kEpsilon;
using ::muster::testing::kInfinity;
using ::muster::testing::kNaN;
using ::muster::testing::RandomFloats;
using ::muster::testing::ToDevice;
using ::muster::testing::ToHost;
using ::muster::testing::TypedArray;

constexpr int32_t kLayers = 2;
constexpr int32_t kLayer = 1;
constexpr int kMultiprocessors = 132;

struct Shape {
  int32_t heads = 4;
  int32_t kv_heads = 2;
  int32_t head_dim = 64;
  int32_t block_size = 16;
  DType dtype = DType::kBFloat16;
  DType activation = DType::kBFloat16;
  KvOwnership ownership = {0, 1};
  int64_t window = 0;
  float queries = 1;  // the largest element
  float scale_sign = 1;
  int64_t misalignment = 0;  // of q and out and their rows, in elements
  int unmapped_percent = 0;  // of blocks
};

// Rows `first` to `first + count - 1` of a sequence; padding where sequence is -1.
struct RowRun {
  int32_t sequence;
  int32_t first;
  int32_t count;
};

uint32_t FreshSeed() {
  static std::random_device device;
  return device();
}

// Relative error of one rounding to nearest.
double UnitRoundoff(DType dtype) {
  return dtype == DType::kFloat32 ? 0x1p-24 : dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}

void OnAllCores(int64_t count, const std::function<void(int64_t)>& fn) {
  const auto workers = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::thread> threads;
  for (int64_t worker = 0; worker < workers; ++worker) {
    threads.emplace_back([=, &fn] {
      for (int64_t i = worker; i < count; i += workers) fn(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A cache here and on the device, blocks in random order; what no run has written is NaN.
class Cache {
 public:
  Cache(const Shape& shape, const std::vector<RowRun>& runs, uint32_t seed)
      : shape_(shape),
        layout_{kLayers, shape.kv_heads, shape.block_size, shape.head_dim, shape.dtype} {
    for (const RowRun& run : runs) {
      if (run.sequence < 0) continue;
      lengths_.resize(std::max(lengths_.size(), size_t(run.sequence) + 1), 0);
      int64_t& length = lengths_[size_t(run.sequence)];
      length = std::max<int64_t>(length, int64_t{run.first} + run.count);
    }
    const int64_t longest = *std::max_element(lengths_.begin(), lengths_.end());
    const int64_t per_rank = int64_t{shape.block_size} * shape.ownership.size;
    max_blocks_ = (longest + per_rank - 1) / per_rank;
    RandomFloats tables_random(seed);
    MakeTables(tables_random);
    const size_t elements = size_t(num_blocks() * KvBlockBytes(layout_)) / SizeOf(shape.dtype);
    arena_ = std::make_unique<TypedArray>(shape.dtype, elements);
    host_ = {arena_->data(), num_blocks(), tables_.data(), max_blocks_};
    RandomFloats fill_random(seed + 1);
    Fill(fill_random);
    Upload();
  }

  const KvLayout& layout() const { return layout_; }
  const KvDescriptor* host() const { return &host_; }
  const KvDescriptor* device() const { return device_descriptor_->as<KvDescriptor>(); }

  void Set(int32_t sequence, int64_t position, float key, float value) {
    for (int32_t head = 0; head < shape_.kv_heads; ++head) {
      for (int32_t i = 0; i < shape_.head_dim; ++i) {
        Store(KvPart::kKey, sequence, position, head, i, key);
        Store(KvPart::kValue, sequence, position, head, i, value);
      }
    }
    Upload();
  }
  void RemoveArena() {
    host_.base = nullptr;
    const KvDescriptor none{};
    device_descriptor_ = std::make_unique<DeviceBytes>(&none, sizeof(none));
  }
  bool GuardsIntact() const { return device_arena_->GuardsIntact(); }

 private:
  int64_t num_blocks() const { return static_cast<int64_t>(tables_.size()) + 3; }

  void MakeTables(RandomFloats& random) {
    std::vector<int32_t> blocks(lengths_.size() * size_t(max_blocks_));
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i) + 3;
    for (size_t i = blocks.size(); i > 1; --i) {
      std::swap(blocks[i - 1], blocks[size_t(random.Integer(0, int64_t(i) - 1))]);
    }
    tables_ = blocks;
    for (int32_t& block : tables_) {
      if (random.Integer(0, 99) < shape_.unmapped_percent) block = -1;
    }
  }

  void Fill(RandomFloats& random) {
    for (size_t sequence = 0; sequence < lengths_.size(); ++sequence) {
      for (int64_t position = 0; position < lengths_[sequence]; ++position) {
        for (int32_t head = 0; head < shape_.kv_heads; ++head) {
          for (int32_t i = 0; i < shape_.head_dim; ++i) {
            const auto slot = static_cast<int32_t>(sequence);
            Store(KvPart::kKey, slot, position, head, i, random.Uniform(-2, 2));
            Store(KvPart::kValue, slot, position, head, i, random.Uniform(-2, 2));
          }
        }
      }
    }
  }

  void Store(KvPart part, int32_t sequence, int64_t position, int32_t head, int32_t i,
             float value) {
    const int64_t number = position / shape_.block_size;
    if (number % shape_.ownership.size != shape_.ownership.rank) return;
    std::byte* block = KvBlock(host_, layout_, sequence, number / shape_.ownership.size);
    if (block == nullptr) return;
    StoreElement(value, shape_.dtype, block + KvPageOffset(layout_, kLayer, part, head),
                 position % shape_.block_size * shape_.head_dim + i);
  }

  void Upload() {
    device_arena_ =
        std::make_unique<DeviceBytes>(arena_->data(), arena_->size() * SizeOf(shape_.dtype));
    device_tables_ =
        std::make_unique<DeviceBytes>(tables_.data(), tables_.size() * sizeof(int32_t));
    const KvDescriptor descriptor{device_arena_->data(), num_blocks(),
                                  device_tables_->as<int32_t>(), max_blocks_};
    device_descriptor_ = std::make_unique<DeviceBytes>(&descriptor, sizeof(descriptor));
  }

  const Shape shape_;
  const KvLayout layout_;
  std::vector<int64_t> lengths_;
  int64_t max_blocks_;
  std::vector<int32_t> tables_;
  std::unique_ptr<TypedArray> arena_;
  KvDescriptor host_;
  std::unique_ptr<DeviceBytes> device_arena_;
  std::unique_ptr<DeviceBytes> device_tables_;
  std::unique_ptr<DeviceBytes> device_descriptor_;
};

// Results as float32, rows packed.
struct Results {
  std::vector<float> out;
  std::vector<float> lse;
};

class Step {
 public:
  Step(const Shape& shape, const Cache& cache, const std::vector<RowRun>& runs, uint32_t seed)
      : shape_(shape), cache_(cache), width_(int64_t{shape.heads} * shape.head_dim) {
    for (const RowRun& run : runs) {
      for (int32_t i = 0; i < run.count; ++i) {
        sequences_.push_back(run.sequence);
        positions_.push_back(run.first + i);
      }
    }
    q_stride_ = width_ + shape.misalignment;
    out_stride_ = width_ + 3 * shape.misalignment;
    q_ = std::make_unique<TypedArray>(shape.activation, size_t(rows() * q_stride_));
    RandomFloats random(seed);
    random.Fill(*q_, -shape.queries, shape.queries);
  }

  int64_t rows() const { return static_cast<int64_t>(sequences_.size()); }
  TypedArray& q() { return *q_; }
  std::vector<int32_t>& positions() { return positions_; }
  float scale() const { return shape_.scale_sign / std::sqrt(float(shape_.head_dim)); }

  Results Reference() const {
    TypedArray out(DType::kFloat32, size_t(rows() * width_));
    std::vector<float> lse(size_t(rows() * shape_.heads));
    PagedAttentionParams params = Common();
    // The reference reads any type but rounds what it stores: float32 stays exact.
    TypedArray q(DType::kFloat32, q_->size());
    for (size_t i = 0; i < q.size(); ++i) q.Set(i, q_->Get(i));
    params.activation = DType::kFloat32;
    params.q = q.data();
    params.positions = positions_.data();
    params.row_sequences = sequences_.data();
    params.kv = cache_.host();
    params.out = out.data();
    params.out_row_stride = width_;
    params.lse = lse.data();
    params.lse_row_stride = shape_.heads;
    OnAllCores(rows(), [&](int64_t row) {
      PagedAttentionReference(params, {row, row + 1}, {0, shape_.heads});
    });
    Results results{std::vector<float>(out.size()), lse};
    for (size_t i = 0; i < out.size(); ++i) results.out[i] = out.Get(i);
    return results;
  }

  // `times` launches one after the other share the scratch; checks what lies around the results.
  Results OnDevice(int times = 1) const {
    const auto shift = static_cast<size_t>(shape_.misalignment);
    const DeviceBytes q = ToDevice(*q_, shift);
    const DeviceBytes positions = ToDevice(positions_);
    const DeviceBytes sequences = ToDevice(sequences_);
    const size_t element = SizeOf(shape_.activation);
    const DeviceBytes out(size_t(rows() * out_stride_) * element, shift * element);
    const int64_t lse_stride = shape_.heads + 1;
    const DeviceBytes lse(size_t(rows() * lse_stride) * sizeof(float));
    PagedAttentionParams params = Common();
    params.q = q.data();
    params.positions = positions.as<int32_t>();
    params.row_sequences = sequences.as<int32_t>();
    params.kv = cache_.device();
    params.out = out.data();
    params.out_row_stride = out_stride_;
    params.lse = lse.as<float>();
    params.lse_row_stride = lse_stride;
    const size_t scratch_bytes = PagedAttentionScratchBytes(params, rows(), kMultiprocessors);
    const std::vector<char> zeros(std::max<size_t>(scratch_bytes, 1), 0);
    const DeviceBytes scratch = ToDevice(zeros);
    for (int i = 0; i < times; ++i) {
      CudaFinish(PagedAttentionCuda(params, rows(), {scratch.data(), scratch_bytes},
                                    kMultiprocessors, nullptr));
    }
    EXPECT_TRUE(out.GuardsIntact() && lse.GuardsIntact() && scratch.GuardsIntact());
    EXPECT_TRUE(cache_.GuardsIntact());
    return {Packed(ToHost(out, shape_.activation), out_stride_, width_),
            Packed(ToHost(lse, DType::kFloat32), lse_stride, shape_.heads)};
  }

 private:
  PagedAttentionParams Common() const {
    PagedAttentionParams params{};
    params.q_row_stride = q_stride_;
    params.heads = shape_.heads;
    params.layout = cache_.layout();
    params.ownership = shape_.ownership;
    params.layer = kLayer;
    params.scale = scale();
    params.window = shape_.window;
    params.activation = shape_.activation;
    return params;
  }

  // Between the rows nothing was written.
  std::vector<float> Packed(const std::vector<float>& strided, int64_t stride,
                            int64_t width) const {
    std::vector<float> packed;
    for (int64_t row = 0; row < rows(); ++row) {
      for (int64_t i = 0; i < stride; ++i) {
        const float value = strided[size_t(row * stride + i)];
        if (i < width) {
          packed.push_back(value);
        } else {
          EXPECT_TRUE(std::isnan(value)) << "behind row " << row;
        }
      }
    }
    return packed;
  }

  const Shape shape_;
  const Cache& cache_;
  const int64_t width_;
  int64_t q_stride_;
  int64_t out_stride_;
  std::vector<int32_t> sequences_;
  std::vector<int32_t> positions_;
  std::unique_ptr<TypedArray> q_;
};

int64_t LongestContext(const std::vector<RowRun>& runs) {
  int64_t longest = 1;
  for (const RowRun& run : runs)
    longest = std::max<int64_t>(longest, int64_t{run.first} + run.count);
  return longest;
}

// Scores sum head_dim products, at most `queries` * 2 each, in pieces of at least 8 elements, and
// are scaled; taking the maximum away and the factor for base 2 cost three roundings more.
double ScoreError(const Shape& shape) {
  const double largest = 2.0 * shape.queries * std::sqrt(double(shape.head_dim));
  return (shape.head_dim / 8.0 + 12) * kEpsilon * largest;
}
// Weights inherit the scores' error relatively and are rounded to the KV's type; so is the result.
// |values| <= 2, of which they are a mean.
double OutTolerance(const Shape& shape, const std::vector<RowRun>& runs, double out) {
  const double summing = (static_cast<double>(LongestContext(runs)) / 8 + 16) * kEpsilon;
  const bool plain = shape.activation == DType::kFloat32 || shape.dtype != shape.activation;
  const double weights = plain ? 0 : UnitRoundoff(shape.dtype);
  const double subnormal = plain ? 0 : static_cast<double>(LongestContext(runs)) * 0x1p-25;
  return 2 * (2 * ScoreError(shape) + summing + weights + subnormal) +
         std::abs(out) * UnitRoundoff(shape.activation);
}

void ExpectClose(const Shape& shape, const std::vector<RowRun>& runs, const Results& expected,
                 const Results& actual) {
  EXPECT_TRUE(AllClose(expected.out.data(), actual.out.data(), expected.out.size(),
                       [&](size_t i) { return OutTolerance(shape, runs, expected.out[i]); }));
  EXPECT_TRUE(AllClose(expected.lse.data(), actual.lse.data(), expected.lse.size(), [&](size_t i) {
    return ScoreError(shape) +
           (LongestContext(runs) / 8.0 + 16 + std::abs(expected.lse[i])) * kEpsilon;
  }));
}

std::string Describe(const Shape& shape, uint32_t seed) {
  return (::testing::Message() << "heads " << shape.heads << "/" << shape.kv_heads << " x "
                               << shape.head_dim << ", block " << shape.block_size << ", KV "
                               << Name(shape.dtype) << ", activation " << Name(shape.activation)
                               << ", cp " << shape.ownership.rank << "/" << shape.ownership.size
                               << ", window " << shape.window << ", queries " << shape.queries
                               << ", misalignment " << shape.misalignment << ", seed " << seed)
      .GetString();
}

void Check(const Shape& shape, const std::vector<RowRun>& runs) {
  if (::testing::Test::HasFailure()) return;  // what failed first is what to look at
  const uint32_t seed = FreshSeed();
  SCOPED_TRACE(Describe(shape, seed));
  const Cache cache(shape, runs, seed);
  const Step step(shape, cache, runs, seed + 1);
  ExpectClose(shape, runs, step.Reference(), step.OnDevice());
}

// Decoding, of short and long contexts, with padding and a short run.
const std::vector<RowRun> kDecode = {{0, 99, 1}, {1, 0, 1},  {-1, 77, 1}, {2, 300, 1},
                                     {3, 20, 5}, {4, 15, 1}, {5, 16, 1},  {-1, 12345, 2}};
// Chunks with and without a history, decode rows before, between and behind them, and padding.
const std::vector<RowRun> kMixed = {{0, 130, 1}, {1, 0, 40},  {2, 57, 8},   {3, 100, 9},
                                    {4, 17, 90}, {5, 250, 1}, {-1, 999, 3}, {6, 0, 3},
                                    {7, 33, 70}, {-1, 5, 40}};

void CheckBoth(const Shape& shape) {
  Check(shape, kDecode);
  Check(shape, kMixed);
}

TEST(PagedAttentionCudaTest, MatchesReferenceForEveryHeadDim) {
  for (const int32_t head_dim : {64, 128, 256, 80, 96, 8, 24, 72, 112, 200, 1, 7, 33}) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
      CheckBoth({.head_dim = head_dim, .dtype = dtype, .activation = dtype});
    }
  }
}

TEST(PagedAttentionCudaTest, MatchesReferenceForEveryPairOfTypes) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    for (const DType activation : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
      CheckBoth({.dtype = dtype, .activation = activation});
    }
  }
}

TEST(PagedAttentionCudaTest, MatchesReferenceForEveryGroupOfHeads) {
  for (const int32_t group : {1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 33}) {
    CheckBoth({.heads = 2 * group, .head_dim = 128});
  }
}

TEST(PagedAttentionCudaTest, MatchesReferenceForEveryBlockSize) {
  for (const int32_t block_size : {8, 16, 24, 32, 64, 128, 1, 5, 20}) {
    CheckBoth({.block_size = block_size});
  }
}

TEST(PagedAttentionCudaTest, MatchesReferenceForPeakedScores) {
  for (const float queries : {8.0f, 100.0f}) {
    for (const int32_t head_dim : {64, 128, 256}) {
      CheckBoth({.heads = 6, .head_dim = head_dim, .queries = queries});
      CheckBoth({.heads = 6,
                 .head_dim = head_dim,
                 .dtype = DType::kFloat16,
                 .activation = DType::kFloat16,
                 .queries = queries,
                 .scale_sign = -1});
    }
  }
}

TEST(PagedAttentionCudaTest, AttendsToOwnedBlocksOnly) {
  for (const int32_t size : {1, 2, 3, 4}) {
    for (int32_t rank = 0; rank < size; ++rank) {
      CheckBoth({.head_dim = 128, .ownership = {rank, size}});
      CheckBoth({.block_size = 8, .ownership = {rank, size}, .window = 50});
      CheckBoth({.block_size = 32, .ownership = {rank, size}});
    }
  }
}

TEST(PagedAttentionCudaTest, MatchesReferenceForEveryWindow) {
  for (const int64_t window : {1, 2, 15, 16, 17, 31, 33, 99, 100, 150, 1000}) {
    CheckBoth({.window = window});
    CheckBoth({.head_dim = 128, .block_size = 32, .ownership = {1, 3}, .window = window});
    CheckBoth({.heads = 14, .head_dim = 256, .block_size = 8, .window = window});
  }
}

TEST(PagedAttentionCudaTest, ReadsAndWritesAtAnyAlignment) {
  for (const int64_t misalignment : {1, 2, 4, 8}) {
    for (const int32_t head_dim : {64, 80, 128}) {
      CheckBoth({.head_dim = head_dim, .misalignment = misalignment});
    }
  }
}

TEST(PagedAttentionCudaTest, UnmappedBlocksHoldNoKeys) {
  for (const int percent : {10, 50, 100}) {
    for (const int32_t head_dim : {64, 128}) {
      CheckBoth({.head_dim = head_dim, .unmapped_percent = percent});
      CheckBoth({.head_dim = head_dim,
                 .block_size = 8,
                 .ownership = {0, 2},
                 .window = 40,
                 .unmapped_percent = percent});
    }
  }
}

TEST(PagedAttentionCudaTest, LongContexts) {
  const Shape shape{.heads = 8, .kv_heads = 2, .head_dim = 128};
  Check(shape, {{0, 9000, 1}});
  Check(shape, {{0, 5000, 1}, {1, 100, 1}, {2, 2000, 1}, {3, 0, 1}});
  Check({.heads = 8, .kv_heads = 2, .head_dim = 128, .ownership = {2, 3}}, {{0, 5000, 1}});
  Check({.heads = 8, .kv_heads = 2, .queries = 20}, {{0, 3000, 1}, {1, 1500, 100}});
  Check(shape, {{0, 2500, 1}, {1, 0, 700}, {2, 4000, 1}, {3, 1200, 130}});
}

TEST(PagedAttentionCudaTest, ManyDecodeRows) {
  std::vector<RowRun> runs;
  RandomFloats random(FreshSeed());
  for (int32_t sequence = 0; sequence < 300; ++sequence) {
    runs.push_back({sequence, int32_t(random.Integer(0, sequence % 50 == 0 ? 3000 : 60)), 1});
  }
  Check({.heads = 2, .kv_heads = 1}, runs);
}

TEST(PagedAttentionCudaTest, MoreRowsThanOneWindowOfThePlan) {
  std::vector<RowRun> runs;
  RandomFloats random(FreshSeed());
  for (int32_t sequence = 0; sequence < 60; ++sequence) {
    runs.push_back({sequence, int32_t(random.Integer(0, 40)), int32_t(random.Integer(1, 90))});
    if (sequence % 7 == 0) runs.push_back({-1, 0, int32_t(random.Integer(1, 9))});
  }
  Check({.heads = 3, .kv_heads = 1}, runs);
}

TEST(PagedAttentionCudaTest, CacheThatDoesNotExistYetHoldsNoKeys) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    for (const auto& runs : {kDecode, kMixed}) {
      const Shape shape{.dtype = dtype, .activation = dtype};
      Cache cache(shape, runs, 1);
      cache.RemoveArena();
      const Results results = Step(shape, cache, runs, 2).OnDevice();
      for (const float out : results.out) ASSERT_EQ(out, 0.0f);
      for (const float lse : results.lse) ASSERT_EQ(lse, -kInfinity);
    }
  }
}

// A position beyond the block table sees the table's keys, all of which are written.
TEST(PagedAttentionCudaTest, HugePositions) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    for (const int32_t count : {1, 40}) {
      const Shape shape{.dtype = dtype, .activation = dtype};
      const std::vector<RowRun> runs = {{0, 160 - count, count}};
      const Cache cache(shape, runs, FreshSeed());
      Step step(shape, cache, runs, FreshSeed());
      for (int32_t& position : step.positions()) position = 159;
      const Results expected = step.Reference();
      for (int32_t& position : step.positions()) position = std::numeric_limits<int32_t>::max();
      ExpectClose(shape, runs, expected, step.OnDevice());
    }
  }
}

TEST(PagedAttentionCudaTest, BitsAreTheSameFromRunToRun) {
  const Shape shape{.heads = 8, .kv_heads = 2, .head_dim = 128};
  const std::vector<RowRun> decode = {{0, 4000, 1}, {1, 700, 1}, {2, 90, 1}};
  const std::vector<RowRun> mixed = {{0, 4000, 1}, {1, 700, 200}, {2, 90, 3}, {3, 0, 333}};
  for (const auto& runs : {decode, mixed}) {
    const Cache cache(shape, runs, FreshSeed());
    const Step step(shape, cache, runs, FreshSeed());
    const Results once = step.OnDevice();
    const Results often = step.OnDevice(/*times=*/5);
    EXPECT_TRUE(AllSame(once.out.data(), often.out.data(), once.out.size()));
    EXPECT_TRUE(AllSame(once.lse.data(), often.lse.data(), once.lse.size()));
  }
}

TEST(PagedAttentionCudaTest, NaNInAQueryStaysInItsHead) {
  for (const auto& runs : {std::vector<RowRun>{{0, 50, 2}}, std::vector<RowRun>{{0, 50, 40}}}) {
    const Shape shape;
    const Cache cache(shape, runs, FreshSeed());
    Step step(shape, cache, runs, FreshSeed());
    step.q().Set(0, kNaN);
    const Results results = step.OnDevice();
    EXPECT_TRUE(std::isnan(results.out[0]) && std::isnan(results.lse[0]));
    for (size_t i = 64; i < results.out.size(); ++i) ASSERT_FALSE(std::isnan(results.out[i])) << i;
  }
}

TEST(PagedAttentionCudaTest, LaterKeysDoNotTouchADecodeRow) {
  const Shape shape;
  const std::vector<RowRun> runs = {{0, 20, 3}};
  Cache cache(shape, runs, FreshSeed());
  const Step step(shape, cache, runs, 3);
  const Results before = step.OnDevice();
  cache.Set(0, 22, kInfinity, kInfinity);
  const Results after = step.OnDevice();
  const size_t two_rows = 2 * size_t(shape.heads * shape.head_dim);
  EXPECT_TRUE(AllSame(before.out.data(), after.out.data(), two_rows));
  EXPECT_TRUE(std::isnan(after.out[two_rows]));
}

// The ranks' partial results, merged, are the result of one rank that holds all keys.
TEST(PagedAttentionCudaTest, RanksMergeToTheWhole) {
  for (const int32_t size : {2, 3, 4}) {
    for (const auto& runs : {kDecode, kMixed}) {
      Shape shape{.heads = 8, .kv_heads = 2, .head_dim = 128};
      const uint32_t seed = FreshSeed();
      const Cache whole_cache(shape, runs, seed);
      const Step whole(shape, whole_cache, runs, seed);
      const Results expected = whole.Reference();
      std::vector<Results> parts;
      for (int32_t rank = 0; rank < size; ++rank) {
        shape.ownership = {rank, size};
        const Cache cache(shape, runs, seed);
        parts.push_back(Step(shape, cache, runs, seed).OnDevice());
      }
      LseMergeParams merge{};
      const int64_t width = int64_t{shape.heads} * shape.head_dim;
      std::vector<float> merged(expected.out.size());
      merge.part_row_stride = width;
      merge.lse_row_stride = shape.heads;
      merge.world = size;
      merge.head_dim = shape.head_dim;
      merge.columns = {0, width};
      merge.out = merged.data();
      merge.out_row_stride = width;
      for (size_t rank = 0; rank < parts.size(); ++rank) {
        merge.parts[rank] = parts[rank].out.data();
        merge.lse[rank] = parts[rank].lse.data();
      }
      LseMergeReference(merge, {0, whole.rows()});
      EXPECT_TRUE(AllClose(expected.out.data(), merged.data(), merged.size(), [&](size_t i) {
        return OutTolerance(shape, runs, expected.out[i]) + 2 * UnitRoundoff(shape.activation);
      }));
    }
  }
}

}  // namespace
}  // namespace muster
