#include "kernels/paged_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "kernels/kernel_test_support.h"

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

struct Shape {
  int32_t heads = 4;
  int32_t kv_heads = 2;
  int32_t head_dim = 64;
  int32_t block_size = 16;
  DType dtype = DType::kBFloat16;
  KvOwnership ownership = {0, 1};
  int64_t sequences = 2;
  int64_t context = 100;  // positions per sequence
  int64_t window = 0;
};

constexpr int32_t kLayers = 2;
constexpr int32_t kLayer = 1;

// A cache with random contents, its blocks in random order; what no position fills is NaN.
class Cache {
 public:
  explicit Cache(const Shape& shape)
      : shape_(shape),
        layout_{kLayers, shape.kv_heads, shape.block_size, shape.head_dim, shape.dtype} {
    RandomFloats random(17);
    const int64_t all_blocks = (shape.context + shape.block_size - 1) / shape.block_size;
    max_blocks_ = (all_blocks + shape.ownership.size - 1) / shape.ownership.size;
    tables_.assign(static_cast<size_t>(shape.sequences * max_blocks_), -1);
    const int64_t num_blocks = shape.sequences * max_blocks_;
    arena_ = std::make_unique<TypedArray>(
        shape.dtype, static_cast<size_t>(num_blocks * KvBlockBytes(layout_)) / SizeOf(shape.dtype));
    for (size_t i = 0; i < tables_.size(); ++i) tables_[i] = static_cast<int32_t>(i);
    for (size_t i = tables_.size(); i > 1; --i) {
      std::swap(tables_[i - 1], tables_[static_cast<size_t>(random.Integer(0, int64_t(i) - 1))]);
    }
    descriptor_ = {arena_->data(), num_blocks, tables_.data(), max_blocks_};
    FillPositions(random);
  }

  const KvDescriptor* descriptor() const { return &descriptor_; }
  KvDescriptor* mutable_descriptor() { return &descriptor_; }
  const KvLayout& layout() const { return layout_; }

 private:
  void FillPositions(RandomFloats& random) {
    for (int32_t sequence = 0; sequence < shape_.sequences; ++sequence) {
      for (int64_t position = 0; position < shape_.context; ++position) {
        const int64_t block = position / shape_.block_size;
        if (block % shape_.ownership.size != shape_.ownership.rank) continue;
        FillSlot(sequence, block / shape_.ownership.size, position % shape_.block_size, random);
      }
    }
  }

  void FillSlot(int32_t sequence, int64_t index, int64_t slot, RandomFloats& random) {
    std::byte* block = KvBlock(descriptor_, layout_, sequence, index);
    for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
      for (int32_t head = 0; head < shape_.kv_heads; ++head) {
        std::byte* page = block + KvPageOffset(layout_, kLayer, part, head);
        for (int64_t i = 0; i < shape_.head_dim; ++i) {
          StoreElement(random.Uniform(-2, 2), shape_.dtype, page, slot * shape_.head_dim + i);
        }
      }
    }
  }

  Shape shape_;
  KvLayout layout_;
  int64_t max_blocks_;
  std::vector<int32_t> tables_;
  std::unique_ptr<TypedArray> arena_;
  KvDescriptor descriptor_;
};

// A step over a cache: queries, and room for results.
class Step {
 public:
  Step(const Shape& shape, const Cache& cache, std::vector<int32_t> sequences,
       std::vector<int32_t> positions)
      : rows_(static_cast<int64_t>(sequences.size())),
        width_(int64_t{shape.heads} * shape.head_dim),
        sequences_(std::move(sequences)),
        positions_(std::move(positions)),
        q_(static_cast<size_t>(rows_ * (width_ + 3)), 1),
        out_(static_cast<size_t>(rows_ * (width_ + 5)), 3),
        lse_(static_cast<size_t>(rows_ * (shape.heads + 1)), 1) {
    RandomFloats random(5);
    random.Fill(q_);
    params_.q = q_.data();
    params_.q_row_stride = width_ + 3;
    params_.heads = shape.heads;
    params_.positions = positions_.data();
    params_.row_sequences = sequences_.data();
    params_.kv = cache.descriptor();
    params_.layout = cache.layout();
    params_.ownership = shape.ownership;
    params_.layer = kLayer;
    params_.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    params_.out = out_.data();
    params_.out_row_stride = width_ + 5;
    params_.lse = lse_.data();
    params_.lse_row_stride = shape.heads + 1;
    params_.window = shape.window;
  }

  IndexRange rows() const { return {0, rows_}; }
  IndexRange heads() const { return {0, params_.heads}; }
  PagedAttentionParams& params() { return params_; }
  TestArray<float>& q() { return q_; }
  TestArray<float>& out() { return out_; }
  TestArray<float>& lse() { return lse_; }
  float* OutRow(int64_t row) { return out_.data() + row * params_.out_row_stride; }
  float* LseRow(int64_t row) { return lse_.data() + row * params_.lse_row_stride; }
  size_t width() const { return static_cast<size_t>(width_); }

 private:
  int64_t rows_;
  int64_t width_;
  std::vector<int32_t> sequences_;
  std::vector<int32_t> positions_;
  TestArray<float> q_;
  TestArray<float> out_;
  TestArray<float> lse_;
  PagedAttentionParams params_{};
};

// A score sums head_dim products of at most 1 * 2, half of them in a row in either accumulator,
// and is scaled by 1 / sqrt(head_dim). The weights inherit its error relatively; |values| <= 2.
double ScoreError(const Shape& shape) {
  return (0.5 * shape.head_dim + 4) * kEpsilon * std::sqrt(shape.head_dim);
}
double OutTolerance(const Shape& shape) {
  return 2.0 * (2 * ScoreError(shape) + (static_cast<double>(shape.context) + 8) * kEpsilon);
}

void ExpectMatchesReference(const Shape& shape, std::vector<int32_t> sequences,
                            std::vector<int32_t> positions) {
  SCOPED_TRACE(::testing::Message() << "heads " << shape.heads << "/" << shape.kv_heads << " x "
                                    << shape.head_dim << ", block " << shape.block_size << ", "
                                    << Name(shape.dtype) << ", cp " << shape.ownership.rank << "/"
                                    << shape.ownership.size << ", window " << shape.window);
  const Cache cache(shape);
  Step expected(shape, cache, sequences, positions);
  Step actual(shape, cache, sequences, positions);
  PagedAttentionReference(expected.params(), expected.rows(), expected.heads());
  PagedAttentionCpu(actual.params(), actual.rows(), actual.heads());
  for (int64_t row = 0; row < expected.rows().end; ++row) {
    SCOPED_TRACE(::testing::Message() << "row " << row);
    EXPECT_TRUE(AllClose(expected.OutRow(row), actual.OutRow(row), expected.width(),
                         [&](size_t) { return OutTolerance(shape); }));
    EXPECT_TRUE(AllClose(expected.LseRow(row), actual.LseRow(row), size_t(shape.heads),
                         [&](size_t) { return ScoreError(shape) + 16 * kEpsilon; }));
  }
  // Between the rows, nothing is written.
  EXPECT_TRUE(std::isnan(actual.OutRow(0)[actual.width()]));
  EXPECT_TRUE(std::isnan(actual.LseRow(0)[shape.heads]));
}

// Prefill of sequence 0 at 20..56, decode of 1 at 99, padding, and prefill of 1 from the start.
void MixedRows(std::vector<int32_t>* sequences, std::vector<int32_t>* positions) {
  for (int32_t position = 20; position <= 56; ++position) {
    sequences->push_back(0);
    positions->push_back(position);
  }
  sequences->insert(sequences->end(), {1, -1, 1, 1, 1});
  positions->insert(positions->end(), {99, 12345, 0, 1, 2});
}

void CheckShape(const Shape& shape) {
  std::vector<int32_t> sequences;
  std::vector<int32_t> positions;
  MixedRows(&sequences, &positions);
  ExpectMatchesReference(shape, sequences, positions);
}

TEST(PagedAttentionTest, MatchesReferenceForEveryHeadDim) {
  ForEachTarget([] {
    for (const int32_t head_dim : {1, 7, 8, 24, 33, 64, 80, 128, 256}) {
      for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
        CheckShape({.head_dim = head_dim, .dtype = dtype});
      }
    }
  });
}

TEST(PagedAttentionTest, MatchesReferenceForEveryGroupOfHeads) {
  ForEachTarget([] {
    for (const int32_t group : {1, 2, 3, 5, 8, 33, 70}) {
      CheckShape({.heads = 2 * group, .head_dim = 16});
    }
  });
}

TEST(PagedAttentionTest, MatchesReferenceForEveryBlockSize) {
  ForEachTarget([] {
    for (const int32_t block_size : {1, 5, 8, 16, 20, 32, 128}) {
      CheckShape({.head_dim = 16, .block_size = block_size});
    }
  });
}

TEST(PagedAttentionTest, AttendsToOwnedBlocksOnly) {
  ForEachTarget([] {
    for (const int32_t size : {2, 3, 4}) {
      for (int32_t rank = 0; rank < size; ++rank) {
        CheckShape({.head_dim = 24, .ownership = {rank, size}});
      }
    }
  });
}

TEST(PagedAttentionTest, MatchesReferenceForEveryWindow) {
  ForEachTarget([] {
    for (const int64_t window : {1, 2, 15, 16, 17, 31, 33, 99, 100, 1000}) {
      CheckShape({.head_dim = 24, .window = window});
      CheckShape({.head_dim = 16, .block_size = 5, .ownership = {1, 3}, .window = window});
      CheckShape({.heads = 14, .kv_heads = 2, .head_dim = 8, .block_size = 32, .window = window});
    }
  });
}

TEST(PagedAttentionTest, RankWithoutKeysInTheWindowGivesZeroAndMinusInfinity) {
  // Of the positions 40 to 47, all in block 2, rank 1 has none.
  const Shape shape{.ownership = {1, 2}, .window = 8};
  const Cache cache(shape);
  Step step(shape, cache, {0}, {47});
  PagedAttentionCpu(step.params(), step.rows(), step.heads());
  for (size_t i = 0; i < step.width(); ++i) EXPECT_EQ(step.OutRow(0)[i], 0.0f);
  for (int32_t head = 0; head < shape.heads; ++head) EXPECT_EQ(step.LseRow(0)[head], -kInfinity);
}

TEST(PagedAttentionTest, RankWithoutKeysGivesZeroAndMinusInfinity) {
  const Shape shape{.ownership = {3, 4}};
  const Cache cache(shape);
  Step step(shape, cache, {0, -1}, {47, 0});  // position 47 is in block 2
  PagedAttentionCpu(step.params(), step.rows(), step.heads());
  for (int64_t row = 0; row < 2; ++row) {
    for (size_t i = 0; i < step.width(); ++i) EXPECT_EQ(step.OutRow(row)[i], 0.0f);
    for (int32_t head = 0; head < shape.heads; ++head) {
      EXPECT_EQ(step.LseRow(row)[head], -kInfinity);
    }
  }
}

TEST(PagedAttentionTest, CacheThatDoesNotExistYetHoldsNoKeys) {
  const Shape shape;
  Cache cache(shape);
  *cache.mutable_descriptor() = {};
  Step step(shape, cache, {0}, {47});
  PagedAttentionCpu(step.params(), step.rows(), step.heads());
  EXPECT_EQ(step.OutRow(0)[0], 0.0f);
  EXPECT_EQ(step.LseRow(0)[0], -kInfinity);
}

void ExpectBitsOfPieces(const Shape& shape, Step& whole, Step pieces, int64_t rows, int64_t heads) {
  for (int64_t row = 0; row < pieces.rows().end; row += rows) {
    for (int64_t head = 0; head < shape.heads; head += heads) {
      PagedAttentionCpu(pieces.params(), {row, std::min(row + rows, pieces.rows().end)},
                        {head, std::min<int64_t>(head + heads, shape.heads)});
    }
  }
  EXPECT_TRUE(AllSame(whole.out().data(), pieces.out().data(), whole.out().size()));
  EXPECT_TRUE(AllSame(whole.lse().data(), pieces.lse().data(), whole.lse().size()));
}

TEST(PagedAttentionTest, BitsDoNotDependOnRangesOrNeighbours) {
  ForEachTarget([] {
    for (const int32_t group : {1, 3, 6}) {
      for (const int64_t window : {0, 3, 21}) {
        const Shape shape{.heads = 2 * group, .head_dim = 40, .window = window};
        std::vector<int32_t> sequences;
        std::vector<int32_t> positions;
        MixedRows(&sequences, &positions);
        const Cache cache(shape);
        Step whole(shape, cache, sequences, positions);
        PagedAttentionCpu(whole.params(), whole.rows(), whole.heads());
        for (const int64_t rows : {1, 2, 7}) {
          for (const int64_t heads : {1, 2, 5}) {
            ExpectBitsOfPieces(shape, whole, Step(shape, cache, sequences, positions), rows, heads);
          }
        }
      }
    }
  });
}

TEST(PagedAttentionTest, AWindowAsLongAsTheContextHasTheBitsOfNone) {
  ForEachTarget([] {
    const Shape all;
    const Shape windowed{.window = all.context};
    const Cache cache(all);
    Step expected(all, cache, {0, 0, 1}, {50, 51, 99});
    Step actual(windowed, cache, {0, 0, 1}, {50, 51, 99});
    PagedAttentionCpu(expected.params(), expected.rows(), expected.heads());
    PagedAttentionCpu(actual.params(), actual.rows(), actual.heads());
    EXPECT_TRUE(AllSame(expected.out().data(), actual.out().data(), expected.out().size()));
  });
}

// Makes the key and the value at `position` of sequence 0 infinite in all heads.
void Spoil(const Shape& shape, const Cache& cache, int64_t position) {
  std::byte* block = KvBlock(*cache.descriptor(), cache.layout(), 0, position / shape.block_size);
  for (int32_t head = 0; head < shape.kv_heads; ++head) {
    for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
      std::byte* page = block + KvPageOffset(cache.layout(), kLayer, part, head);
      for (int64_t i = 0; i < shape.head_dim; ++i) {
        StoreElement(kInfinity, shape.dtype, page,
                     position % shape.block_size * shape.head_dim + i);
      }
    }
  }
}

TEST(PagedAttentionTest, NeitherLaterKeysNorStrangersTouchARow) {
  ForEachTarget([] {
    const Shape shape{.sequences = 1, .context = 40};
    const Cache cache(shape);
    Step before(shape, cache, {0, 0, 0}, {20, 21, 22});
    PagedAttentionCpu(before.params(), before.rows(), before.heads());
    Spoil(shape, cache, 22);
    Step after(shape, cache, {0, 0, 0}, {20, 21, 22});
    PagedAttentionCpu(after.params(), after.rows(), after.heads());
    for (int64_t row = 0; row < 2; ++row) {
      EXPECT_TRUE(AllSame(before.OutRow(row), after.OutRow(row), before.width()));
    }
    EXPECT_TRUE(std::isnan(after.OutRow(2)[0]));
  });
}

TEST(PagedAttentionTest, KeysBeforeTheWindowDoNotTouchARow) {
  ForEachTarget([] {
    const Shape shape{.sequences = 1, .context = 40, .window = 7};
    const Cache cache(shape);
    Step before(shape, cache, {0, 0, 0}, {26, 27, 28});
    PagedAttentionCpu(before.params(), before.rows(), before.heads());
    Spoil(shape, cache, 20);
    Step after(shape, cache, {0, 0, 0}, {26, 27, 28});
    PagedAttentionCpu(after.params(), after.rows(), after.heads());
    EXPECT_TRUE(std::isnan(after.OutRow(0)[0]));
    for (int64_t row = 1; row < 3; ++row) {
      EXPECT_TRUE(AllSame(before.OutRow(row), after.OutRow(row), before.width()));
    }
  });
}

TEST(PagedAttentionTest, NaNInAQueryShows) {
  ForEachTarget([] {
    const Shape shape;
    const Cache cache(shape);
    Step step(shape, cache, {0, 0}, {50, 51});
    step.q()[0] = kNaN;
    PagedAttentionCpu(step.params(), step.rows(), step.heads());
    EXPECT_TRUE(std::isnan(step.OutRow(0)[0]));
    EXPECT_TRUE(std::isnan(step.LseRow(0)[0]));
    EXPECT_FALSE(std::isnan(step.OutRow(0)[shape.head_dim]));
    EXPECT_FALSE(std::isnan(step.OutRow(1)[0]));
  });
}

TEST(PagedAttentionTest, LargeScoresDoNotOverflow) {
  ForEachTarget([] {
    const Shape shape{.head_dim = 8, .dtype = DType::kFloat32};
    const Cache cache(shape);
    Step step(shape, cache, {0}, {99});
    step.params().scale = 1e6f;
    PagedAttentionCpu(step.params(), step.rows(), step.heads());
    for (size_t i = 0; i < step.width(); ++i) EXPECT_LE(std::abs(step.OutRow(0)[i]), 2.0f);
    for (int32_t head = 0; head < shape.heads; ++head) EXPECT_GT(step.LseRow(0)[head], 1e5f);
  });
}

}  // namespace
}  // namespace muster
