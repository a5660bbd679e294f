// Which sizes a model can be split into, and what a rank then holds. Pure functions of both.
#ifndef MUSTER_COORDINATOR_RANK_SIZES_H_
#define MUSTER_COORDINATOR_RANK_SIZES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/topology.h"

namespace muster {

// Tokens in one KV block.
inline constexpr int kBlockTokens = 16;
// Ranks that one stage can have.
inline constexpr int kMaxStageSize = 16;

// Predicted memory of one rank.
struct RankFootprint {
  GlobalRank rank;
  uint64_t weight_bytes = 0;
  uint64_t stage_bytes = 0;     // of those: sharded over the stage, so that another cp changes them
  uint64_t kv_block_bytes = 0;  // one block, all layers
  friend bool operator==(const RankFootprint&, const RankFootprint&) = default;
};

// Context-parallel sizes that a replica can change to while it serves.
struct CpRange {
  int min = 1;
  int max = 1;
  friend bool operator==(const CpRange&, const CpRange&) = default;
};
// Half of `cp` to twice as much.
CpRange DefaultCpRange(int cp);

// INVALID_ARGUMENT (reason PLAN_REFUSED) for sizes that no model could have.
absl::Status CheckSizes(const ParallelConfig& config);

// INVALID_ARGUMENT (reason PLAN_REFUSED) unless the model can be split so: names the number that
// does not divide and the sizes that would, cp sizes of `range` alone. `config` may be outside of
// it.
absl::Status CheckConfig(const ParallelConfig& config, const ModelSpec& model,
                         const CpRange& range = {.min = 1, .max = kMaxStageSize});

// Bytes of weights and of a KV block on each rank. `config` has passed CheckConfig.
std::vector<RankFootprint> Footprints(const ParallelConfig& config, const ModelSpec& model);

// Of weights sharded over the stage: what a rank of `config` must leave free so that its cp and
// those of `range` may follow each other, two held at once. 0 where it can have no other.
uint64_t ResizeReserveBytes(const ParallelConfig& config, const ModelSpec& model,
                            const CpRange& range);

// INVALID_ARGUMENT with reason PLAN_REFUSED.
absl::Status RefusePlan(absl::string_view message);
// "1, 3 or 9"; `sizes` is not empty.
std::string ChoicesText(const std::vector<int>& sizes);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_RANK_SIZES_H_
