#include "worker/collective/group.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"

namespace muster {

absl::StatusOr<Group> Group::Create(const GroupSpec& spec, GlobalRank self) {
  std::vector<GlobalRank> sorted = spec.ranks;
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", twice->value(), " stands twice in ", spec.DebugString()));
  }
  const auto at = std::find(spec.ranks.begin(), spec.ranks.end(), self);
  if (at == spec.ranks.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", self.value(), " is no member of ", spec.DebugString()));
  }
  return Group(spec, GroupRank(static_cast<int>(at - spec.ranks.begin())));
}

GlobalRank Group::ToGlobal(GroupRank rank) const {
  assert(rank.value() >= 0 && rank.value() < size());
  return spec_.ranks[rank.value()];
}

absl::StatusOr<GroupRank> Group::ToGroup(GlobalRank rank) const {
  const auto at = std::find(spec_.ranks.begin(), spec_.ranks.end(), rank);
  if (at == spec_.ranks.end()) {
    return absl::NotFoundError(
        absl::StrCat("rank ", rank.value(), " is no member of ", DebugString()));
  }
  return GroupRank(static_cast<int>(at - spec_.ranks.begin()));
}

}  // namespace muster
