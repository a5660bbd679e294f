#include "worker/model/rank_shape.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

ModelSpec Llama8B() {
  return {.heads = 32, .kv_heads = 8, .head_dim = 128, .ffn = 14336, .vocabulary = 128256};
}
ModelSpec SmolLm() {
  return {.heads = 9, .kv_heads = 3, .head_dim = 64, .ffn = 1536, .vocabulary = 49152};
}

RankShape ShapeOf(const ModelSpec& model, int tp, int cp, int rank) {
  const auto shape = RankShape::Create(model, {.tp = tp, .cp = cp}, GlobalRank(rank));
  EXPECT_OK(shape);
  return *shape;
}

TEST(RankShapeTest, ShardsDifferByOneAtMost) {
  EXPECT_EQ(ShardOf(10, 3, 0), (ShardRange{0, 4}));
  EXPECT_EQ(ShardOf(10, 3, 1), (ShardRange{4, 7}));
  EXPECT_EQ(ShardOf(10, 3, 2), (ShardRange{7, 10}));
  EXPECT_EQ(ShardOf(2, 4, 3), (ShardRange{2, 2}));
}

TEST(RankShapeTest, WorkedExample) {
  // tp=2 cp=2: rank 2 is cp_rank 1, tp_rank 0, and the third of STAGE.
  const RankShape shape = ShapeOf(Llama8B(), 2, 2, 2);
  EXPECT_EQ(shape.heads, (ShardRange{0, 16}));
  EXPECT_EQ(shape.kv_heads, (ShardRange{0, 4}));
  // Slice tp_rank * cp + cp_rank = 1: the second half of TP rank 0's heads.
  EXPECT_EQ(shape.o_columns, (ShardRange{1024, 2048}));
  EXPECT_EQ(shape.ffn, (ShardRange{7168, 10752}));
  EXPECT_EQ(shape.vocabulary, (ShardRange{64128, 96192}));
  EXPECT_EQ(shape.cp_rank, 1);
  EXPECT_EQ(shape.cp_size, 2);
  EXPECT_EQ(shape.stage_size, 4);
  EXPECT_EQ(shape.stage_rank, 2);
}

TEST(RankShapeTest, FewKvHeadsAreReplicatedInConsecutiveRuns) {
  for (int rank = 0; rank < 9; ++rank) {
    const RankShape shape = ShapeOf(SmolLm(), 9, 1, rank);
    EXPECT_EQ(shape.heads, (ShardRange{rank, rank + 1}));
    EXPECT_EQ(shape.kv_heads, (ShardRange{rank / 3, rank / 3 + 1}));
  }
}

// Every index is held by exactly one rank, and o_proj reads what the CP combine leaves.
TEST(RankShapeTest, ShardsTileTheModel) {
  ModelSpec model = SmolLm();
  model.ffn = 1537;
  model.vocabulary = 49157;
  for (const auto& [tp, cp] :
       {std::pair(1, 1), std::pair(3, 2), std::pair(1, 4), std::pair(3, 3)}) {
    std::vector<int> ffn(model.ffn), vocabulary(model.vocabulary), o_columns(576);
    const auto mark = [](std::vector<int>& counts, ShardRange range) {
      for (int i = range.begin; i < range.end; ++i) ++counts[i];
    };
    for (int rank = 0; rank < tp * cp; ++rank) {
      const RankShape shape = ShapeOf(model, tp, cp, rank);
      mark(ffn, shape.ffn);
      mark(vocabulary, shape.vocabulary);
      mark(o_columns, shape.o_columns);
      const int first = shape.heads.begin * model.head_dim;
      const int slice = shape.heads.size() * model.head_dim / cp;
      EXPECT_EQ(shape.o_columns.begin, first + shape.cp_rank * slice);
      EXPECT_EQ(shape.o_columns.size(), slice);
    }
    EXPECT_EQ(ffn, std::vector<int>(ffn.size(), 1));
    EXPECT_EQ(vocabulary, std::vector<int>(vocabulary.size(), 1));
    EXPECT_EQ(o_columns, std::vector<int>(o_columns.size(), 1));
  }
}

TEST(RankShapeTest, RefusesWithTheNumberThatDoesNotDivide) {
  const auto refused = [](const ModelSpec& model, ParallelConfig config, int rank = 0) {
    return RankShape::Create(model, config, GlobalRank(rank)).status();
  };
  EXPECT_STATUS(refused(SmolLm(), {.tp = 2}), absl::StatusCode::kInvalidArgument,
                "tp=2 does not divide the model's 9 attention heads");
  EXPECT_EQ(DetailOf(refused(SmolLm(), {.tp = 2})).reason, ErrorReason::kPlanRefused);
  ModelSpec model = SmolLm();
  model.heads = 12;
  EXPECT_STATUS(refused(model, {.tp = 4}), absl::StatusCode::kInvalidArgument,
                "tp=4 neither divides the model's 3 KV heads nor is a multiple");
  EXPECT_STATUS(refused(SmolLm(), {.tp = 9, .cp = 3}), absl::StatusCode::kInvalidArgument,
                "cp=3 does not divide the 64 attention columns");
  EXPECT_STATUS(refused(SmolLm(), {.pp = 2}), absl::StatusCode::kInvalidArgument, "pp must be 1");
  EXPECT_STATUS(refused(SmolLm(), {.cp = 2}, 2), absl::StatusCode::kInvalidArgument,
                "rank 2 is not one of 2 ranks");
  model = SmolLm();
  model.vocabulary = 3;
  EXPECT_STATUS(refused(model, {.cp = 4}), absl::StatusCode::kInvalidArgument,
                "4 ranks are more than");
  EXPECT_STATUS(refused(ModelSpec{}, {}), absl::StatusCode::kInvalidArgument, "positive");
}

}  // namespace
}  // namespace muster
