#include "worker/model/rank_shape.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

template <typename... Args>
absl::Status Refused(const Args&... message) {
  return MakeError(absl::StatusCode::kInvalidArgument, absl::StrCat(message...),
                   {.reason = ErrorReason::kPlanRefused});
}

absl::Status CheckHeads(const ModelSpec& model, int tp) {
  if (model.heads % tp != 0) {
    return Refused("tp=", tp, " does not divide the model's ", model.heads, " attention heads");
  }
  if (model.kv_heads % tp != 0 && tp % model.kv_heads != 0) {
    return Refused("tp=", tp, " neither divides the model's ", model.kv_heads,
                   " KV heads nor is a multiple of them");
  }
  return absl::OkStatus();
}

absl::Status CheckWidths(const ModelSpec& model, const ParallelConfig& config) {
  const int columns = model.heads / config.tp * model.head_dim;
  if (columns % config.cp != 0) {
    return Refused("cp=", config.cp, " does not divide the ", columns,
                   " attention columns of a rank (", model.heads / config.tp, " heads of ",
                   model.head_dim, ")");
  }
  const int ranks = config.stage_size();
  if (ranks > std::min(model.ffn, model.vocabulary)) {
    return Refused(ranks, " ranks are more than the FFN's ", model.ffn,
                   " columns or the vocabulary's ", model.vocabulary, " tokens");
  }
  return absl::OkStatus();
}

absl::Status CheckSizes(const ModelSpec& model, const ParallelConfig& config, GlobalRank rank) {
  if (config.tp < 1 || config.cp < 1 || config.pp != 1) {
    return Refused("tp=", config.tp, " cp=", config.cp, " pp=", config.pp,
                   ": tp and cp must be at least 1, and pp must be 1");
  }
  if (rank.value() < 0 || rank.value() >= config.world_size()) {
    return Refused("rank ", rank.value(), " is not one of ", config.world_size(), " ranks");
  }
  if (std::min({model.heads, model.kv_heads, model.head_dim, model.ffn, model.vocabulary}) < 1) {
    return Refused("the model's sizes must all be positive");
  }
  MUSTER_RETURN_IF_ERROR(CheckHeads(model, config.tp));
  return CheckWidths(model, config);
}

ShardRange KvHeads(int kv_heads, int tp, int tp_rank) {
  if (tp <= kv_heads) return ShardOf(kv_heads, tp, tp_rank);
  const int head = tp_rank / (tp / kv_heads);
  return {.begin = head, .end = head + 1};
}

}  // namespace

ShardRange ShardOf(int count, int shards, int index) {
  const int rest = count % shards;
  const int begin = count / shards * index + std::min(index, rest);
  return {.begin = begin, .end = begin + count / shards + (index < rest ? 1 : 0)};
}

absl::StatusOr<RankShape> RankShape::Create(const ModelSpec& model, const ParallelConfig& config,
                                            GlobalRank rank) {
  MUSTER_RETURN_IF_ERROR(CheckSizes(model, config, rank));
  const RankCoordinates at = CoordinatesOf(config, rank);
  const int ranks = config.stage_size();
  const int stage_rank = at.cp_rank * config.tp + at.tp_rank;
  return RankShape{.heads = ShardOf(model.heads, config.tp, at.tp_rank),
                   .kv_heads = KvHeads(model.kv_heads, config.tp, at.tp_rank),
                   .o_columns = ShardOf(model.heads * model.head_dim, ranks,
                                        at.tp_rank * config.cp + at.cp_rank),
                   .ffn = ShardOf(model.ffn, ranks, stage_rank),
                   .vocabulary = ShardOf(model.vocabulary, ranks, stage_rank),
                   .cp_rank = at.cp_rank,
                   .cp_size = config.cp,
                   .stage_rank = stage_rank,
                   .stage_size = ranks};
}

}  // namespace muster
