#ifndef MUSTER_WORKER_COLLECTIVE_GROUP_H_
#define MUSTER_WORKER_COLLECTIVE_GROUP_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "base/topology.h"

namespace muster {

// An ordered list of ranks as one of its members sees it. The only place that
// converts global and group ranks. Immutable.
class Group {
 public:
  // INVALID_ARGUMENT when `self` is not a member or a rank stands twice.
  static absl::StatusOr<Group> Create(const GroupSpec& spec, GlobalRank self);

  const GroupSpec& spec() const { return spec_; }
  GroupId id() const { return spec_.id; }
  GroupKind kind() const { return spec_.kind; }
  int size() const { return static_cast<int>(spec_.ranks.size()); }
  // The member that holds this object.
  GroupRank rank() const { return rank_; }

  // `rank` must be in [0, size).
  GlobalRank ToGlobal(GroupRank rank) const;
  // NOT_FOUND when the global rank is no member.
  absl::StatusOr<GroupRank> ToGroup(GlobalRank rank) const;

  std::string DebugString() const { return spec_.DebugString(); }

 private:
  Group(GroupSpec spec, GroupRank rank) : spec_(std::move(spec)), rank_(rank) {}

  GroupSpec spec_;
  GroupRank rank_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_GROUP_H_
