#include "worker/collective/workspace_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace muster {
namespace {

constexpr uint64_t kPage = 4096;

uint64_t RoundUp(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

WorkspacePlan* FindByKind(std::vector<WorkspacePlan>& plans, GroupKind kind) {
  for (WorkspacePlan& plan : plans) {
    if (std::count(plan.kinds.begin(), plan.kinds.end(), kind) != 0) return &plan;
  }
  return nullptr;
}

void AddGroup(std::vector<WorkspacePlan>& plans, const GroupSpec& group) {
  const auto same = std::find_if(plans.begin(), plans.end(), [&](const WorkspacePlan& plan) {
    return plan.ranks == group.ranks;
  });
  if (same != plans.end()) {
    same->kinds.push_back(group.kind);
    absl::StrAppend(&same->tag, "+", GroupKindName(group.kind));
    return;
  }
  plans.push_back({.ranks = group.ranks,
                   .kinds = {group.kind},
                   .slab_bytes = kMinSlabBytes,
                   .tag = absl::StrCat("workspace/", GroupKindName(group.kind))});
}

}  // namespace

CollectiveUse CollectiveUse::AllReduceRmsNorm(GroupKind group, int hidden, int max_tokens) {
  return {group, static_cast<uint64_t>(hidden) * sizeof(float), max_tokens};
}

CollectiveUse CollectiveUse::CpCombine(int heads, int head_dim, int max_tokens) {
  const uint64_t values = static_cast<uint64_t>(heads) * (static_cast<uint64_t>(head_dim) + 1);
  return {GroupKind::kCp, values * sizeof(float), max_tokens};
}

CollectiveUse CollectiveUse::AllGather(GroupKind group, uint64_t bytes) {
  return {group, bytes, 1};
}

absl::StatusOr<std::vector<WorkspacePlan>> PlanWorkspaces(const std::vector<GroupSpec>& groups,
                                                          GlobalRank self,
                                                          const std::vector<CollectiveUse>& uses) {
  std::vector<WorkspacePlan> plans;
  for (const GroupSpec& group : groups) {
    if (std::count(group.ranks.begin(), group.ranks.end(), self) == 0) continue;
    if (FindByKind(plans, group.kind) != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", self.value(), " is in two groups ", GroupKindName(group.kind)));
    }
    AddGroup(plans, group);
  }
  for (const CollectiveUse& use : uses) {
    WorkspacePlan* plan = FindByKind(plans, use.group);
    if (plan == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", self.value(), " is in no group ", GroupKindName(use.group)));
    }
    if (use.row_bytes == 0 || use.max_rows <= 0) {
      return absl::InvalidArgumentError(absl::StrCat("a use of ", GroupKindName(use.group), " has ",
                                                     use.max_rows, " rows of ", use.row_bytes,
                                                     " bytes"));
    }
    // At least a row, then as many as the cap allows.
    const uint64_t rows = std::clamp<uint64_t>(kMaxSlabBytes / use.row_bytes, 1, use.max_rows);
    plan->slab_bytes = std::max(plan->slab_bytes, RoundUp(rows * use.row_bytes, kPage));
    plan->message_bytes = std::max(plan->message_bytes, use.max_rows * use.row_bytes);
  }
  return plans;
}

}  // namespace muster
