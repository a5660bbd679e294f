#include "coordinator/rank_sizes.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr int kMaxAxis = 1024;

std::vector<int> SizesUpTo(int limit, const std::function<bool(int)>& fits) {
  std::vector<int> sizes;
  for (int size = 1; size <= limit; ++size) {
    if (fits(size)) sizes.push_back(size);
  }
  return sizes;
}

bool KvHeadsFit(const ModelSpec& model, int tp) {
  return model.kv_heads % tp == 0 || tp % model.kv_heads == 0;
}

absl::Status CheckTp(const ParallelConfig& config, const ModelSpec& model) {
  const std::vector<int> fitting = SizesUpTo(
      kMaxStageSize, [&](int tp) { return model.heads % tp == 0 && KvHeadsFit(model, tp); });
  if (config.tp > kMaxStageSize) {
    return RefusePlan(absl::StrCat("cannot plan tp=", config.tp, ": a stage can have ",
                                   kMaxStageSize, " ranks. tp can be ", ChoicesText(fitting), "."));
  }
  if (model.heads % config.tp != 0) {
    return RefusePlan(absl::StrCat("cannot plan tp=", config.tp, ": the model has ", model.heads,
                                   " attention heads, which ", config.tp,
                                   " does not divide. tp can be ", ChoicesText(fitting), "."));
  }
  if (!KvHeadsFit(model, config.tp)) {
    return RefusePlan(absl::StrCat("cannot plan tp=", config.tp, ": the model has ", model.kv_heads,
                                   " key/value heads, and ", config.tp,
                                   " neither divides them nor is a multiple of them. tp can be ",
                                   ChoicesText(fitting), "."));
  }
  return absl::OkStatus();
}

// " cp can be 1 or 2."; nothing where there is no choice.
std::string CpChoices(absl::string_view subject, const std::vector<int>& sizes) {
  return sizes.empty() ? "" : absl::StrCat(" ", subject, " can be ", ChoicesText(sizes), ".");
}

absl::Status CheckCp(const ParallelConfig& config, const ModelSpec& model, const CpRange& range) {
  const int width = model.heads / config.tp * model.head_dim;
  const std::vector<int> fitting = SizesUpTo(kMaxStageSize / config.tp, [&](int cp) {
    return width % cp == 0 && cp >= range.min && cp <= range.max;
  });
  if (width % config.cp != 0) {
    return RefusePlan(absl::StrCat("cannot plan cp=", config.cp, " with tp=", config.tp, ": ",
                                   model.heads / config.tp, " heads of ", model.head_dim, " make ",
                                   width, " numbers per token, which ", config.cp,
                                   " does not divide.", CpChoices("cp", fitting)));
  }
  if (config.stage_size() > kMaxStageSize) {
    return RefusePlan(absl::StrCat("cannot plan tp=", config.tp, " cp=", config.cp,
                                   ": a stage would have ", config.stage_size(),
                                   " ranks; it can have ", kMaxStageSize, ".",
                                   CpChoices(absl::StrCat("With tp=", config.tp, " cp"), fitting)));
  }
  return absl::OkStatus();
}

int ShardSize(int count, int shards, int index) {
  return count / shards + (index < count % shards ? 1 : 0);
}

uint64_t ElementBytes(const ModelSpec& model) { return model.dtype == "float32" ? 4 : 2; }

// Elements of one layer: q, k, v, o_proj, FFN and the two norms, of which a rank has these many
// heads and columns.
uint64_t LayerElements(const ModelSpec& model, uint64_t heads, uint64_t kv_heads,
                       uint64_t o_columns, uint64_t ffn) {
  const uint64_t rows = (heads + 2 * kv_heads) * model.head_dim + o_columns + 3 * ffn + 2;
  return rows * model.hidden;
}

// Tables of [vocabulary, hidden]: the embedding, and the output where it is not tied to it.
int VocabularyTables(const ModelSpec& model) {
  const uint64_t table = uint64_t(model.vocabulary) * model.hidden;
  const uint64_t layer = LayerElements(model, model.heads, model.kv_heads,
                                       uint64_t(model.heads) * model.head_dim, model.ffn);
  const uint64_t untied = 2 * table + layer * model.layers + model.hidden;
  return model.weight_bytes >= untied * ElementBytes(model) ? 2 : 1;
}

}  // namespace

absl::Status CheckSizes(const ParallelConfig& config) {
  const std::pair<const char*, int> sizes[] = {
      {"tp", config.tp}, {"cp", config.cp}, {"pp", config.pp}, {"replicas", config.replicas}};
  for (const auto& [name, size] : sizes) {
    if (size < 1 || size > kMaxAxis) {
      return RefusePlan(absl::StrCat("cannot plan ", name, "=", size, ": it can be 1 to 1,024."));
    }
  }
  if (config.pp != 1) {
    return RefusePlan(absl::StrCat("cannot plan pp=", config.pp,
                                   ": this version runs all layers in one stage. pp can be 1."));
  }
  return absl::OkStatus();
}

absl::Status RefusePlan(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = ErrorReason::kPlanRefused});
}

std::string ChoicesText(const std::vector<int>& sizes) {
  std::string text = absl::StrJoin(sizes.begin(), sizes.end() - 1, ", ");
  return absl::StrCat(text, text.empty() ? "" : " or ", sizes.back());
}

CpRange DefaultCpRange(int cp) { return {.min = std::max(1, cp / 2), .max = 2 * cp}; }

absl::Status CheckConfig(const ParallelConfig& config, const ModelSpec& model,
                         const CpRange& range) {
  MUSTER_RETURN_IF_ERROR(CheckSizes(config));
  MUSTER_RETURN_IF_ERROR(CheckTp(config, model));
  return CheckCp(config, model, range);
}

std::vector<RankFootprint> Footprints(const ParallelConfig& config, const ModelSpec& model) {
  const int shards = config.stage_size();
  const int heads = model.heads / config.tp;
  const int kv_heads = std::max(1, model.kv_heads / config.tp);
  const int tables = VocabularyTables(model);
  std::vector<RankFootprint> footprints;
  for (int rank = 0; rank < config.world_size(); ++rank) {
    const int shard = rank % shards;
    const uint64_t layer =
        LayerElements(model, static_cast<uint64_t>(heads), static_cast<uint64_t>(kv_heads),
                      static_cast<uint64_t>(model.heads * model.head_dim / shards),
                      static_cast<uint64_t>(ShardSize(model.ffn, shards, shard)));
    const auto words = static_cast<uint64_t>(ShardSize(model.vocabulary, shards, shard));
    const uint64_t elements = layer * model.layers + (words * tables + 1) * model.hidden;
    const uint64_t replicated =
        LayerElements(model, static_cast<uint64_t>(heads), static_cast<uint64_t>(kv_heads), 0, 0) *
            model.layers +
        model.hidden;
    footprints.push_back({.rank = GlobalRank(rank),
                          .weight_bytes = elements * ElementBytes(model),
                          .stage_bytes = (elements - replicated) * ElementBytes(model),
                          .kv_block_bytes = uint64_t(model.layers) * 2 * kv_heads * kBlockTokens *
                                            model.head_dim * ElementBytes(model)});
  }
  return footprints;
}

namespace {

// Of the rank that has the most of them.
uint64_t MostStageBytes(const ParallelConfig& config, const ModelSpec& model) {
  uint64_t most = 0;
  for (const RankFootprint& rank : Footprints(config, model)) {
    most = std::max(most, rank.stage_bytes);
  }
  return most;
}

}  // namespace

uint64_t ResizeReserveBytes(const ParallelConfig& config, const ModelSpec& model,
                            const CpRange& range) {
  std::set<int> sizes = {config.cp};
  for (int cp = range.min; cp <= range.max; ++cp) sizes.insert(cp);
  uint64_t largest = 0, second = 0;
  for (const int cp : sizes) {
    const ParallelConfig other{.tp = config.tp, .cp = cp};
    if (!CheckConfig(other, model).ok()) continue;
    const uint64_t bytes = MostStageBytes(other, model);
    second = std::max(second, std::min(largest, bytes));
    largest = std::max(largest, bytes);
  }
  // KV is sized beside the weights of `config`. Where the same cp follows they are shared.
  return second == 0 ? 0 : largest + second - MostStageBytes(config, model);
}

}  // namespace muster
