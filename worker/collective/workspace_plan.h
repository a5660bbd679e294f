// Which workspaces an epoch needs, decided before any memory is touched.
#ifndef MUSTER_WORKER_COLLECTIVE_WORKSPACE_PLAN_H_
#define MUSTER_WORKER_COLLECTIVE_WORKSPACE_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "base/topology.h"

namespace muster {

// One collective that a model will enqueue on a group.
struct CollectiveUse {
  GroupKind group = GroupKind::kStage;
  uint64_t row_bytes = 0;  // that one rank contributes of one token
  int max_rows = 0;        // tokens of the largest step

  static CollectiveUse AllReduceRmsNorm(GroupKind group, int hidden, int max_tokens);
  static CollectiveUse CpCombine(int heads, int head_dim, int max_tokens);
  static CollectiveUse AllGather(GroupKind group, uint64_t bytes);

  friend bool operator==(const CollectiveUse&, const CollectiveUse&) = default;
};

// The workspace of one ordered rank list, whatever the groups that use it.
struct WorkspacePlan {
  std::vector<GlobalRank> ranks;
  std::vector<GroupKind> kinds;  // that have exactly these ranks in this order
  uint64_t slab_bytes = 0;       // of one of the two slabs; longer messages go in slices
  std::string tag;               // in the ledger: "workspace/STAGE+CP"
  uint64_t message_bytes = 0;    // of the longest message of one rank

  friend bool operator==(const WorkspacePlan&, const WorkspacePlan&) = default;
};

// A message longer than this goes in slices: more would only push the slab out of the caches.
inline constexpr uint64_t kMaxSlabBytes = uint64_t{1} << 18;
inline constexpr uint64_t kMinSlabBytes = uint64_t{16} << 10;

// The workspaces of `self`, in the order of `groups`, of which those without `self` are passed
// over. Groups are matched by their ordered ranks, never by size. Pure, and the same on all ranks
// of a group. INVALID_ARGUMENT when a use names a group that `self` is not in, or has no rows.
absl::StatusOr<std::vector<WorkspacePlan>> PlanWorkspaces(const std::vector<GroupSpec>& groups,
                                                          GlobalRank self,
                                                          const std::vector<CollectiveUse>& uses);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_WORKSPACE_PLAN_H_
