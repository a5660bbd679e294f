// Which part of a model one rank holds; pure arithmetic.
#ifndef MUSTER_WORKER_MODEL_RANK_SHAPE_H_
#define MUSTER_WORKER_MODEL_RANK_SHAPE_H_

#include "absl/status/statusor.h"
#include "base/topology.h"

namespace muster {

// A half-open run of indices.
struct ShardRange {
  int begin = 0;
  int end = 0;
  int size() const { return end - begin; }
  friend bool operator==(const ShardRange&, const ShardRange&) = default;
};

// The part of `count` indices that shard `index` of `shards` holds:
// consecutive, the first `count % shards` shards one longer.
ShardRange ShardOf(int count, int shards, int index);

// Sizes and offsets of one rank.
struct RankShape {
  ShardRange heads;       // query heads, over TP
  ShardRange kv_heads;    // over TP; replicated in consecutive runs when tp > kv heads
  ShardRange o_columns;   // input columns of o_proj, flat heads * head_dim, shard
                          // tp_rank * cp + cp_rank of STAGE
  ShardRange ffn;         // over STAGE, by stage rank
  ShardRange vocabulary;  // over STAGE, by stage rank
  int cp_rank = 0;        // holds KV blocks b with b % cp_size == cp_rank
  int cp_size = 1;
  int stage_rank = 0;
  int stage_size = 1;

  // INVALID_ARGUMENT names the number that does not divide.
  static absl::StatusOr<RankShape> Create(const ModelSpec& model, const ParallelConfig& config,
                                          GlobalRank rank);
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_RANK_SHAPE_H_
