// Ids, ranks and indices as types of their own, so that none can stand in for
// another.
#ifndef MUSTER_BASE_IDS_H_
#define MUSTER_BASE_IDS_H_

#include <compare>
#include <cstdint>
#include <functional>
#include <ostream>
#include <utility>

namespace muster {

// An integer with a name. Conversion both ways is explicit; there is no
// arithmetic.
template <typename Tag, typename Int>
class StrongId {
 public:
  using Value = Int;

  constexpr StrongId() = default;
  constexpr explicit StrongId(Int value) : value_(value) {}

  constexpr Int value() const { return value_; }

  friend constexpr auto operator<=>(StrongId, StrongId) = default;
  template <typename H>
  friend H AbslHashValue(H h, StrongId id) {
    return H::combine(std::move(h), id.value_);
  }
  friend std::ostream& operator<<(std::ostream& os, StrongId id) { return os << id.value_; }

 private:
  Int value_ = 0;
};

// Rank within a replica: (pp_rank * cp + cp_rank) * tp + tp_rank.
using GlobalRank = StrongId<struct GlobalRankTag, int>;
// Rank within one group: the index in its ordered list of global ranks. Only
// `Group` converts.
using GroupRank = StrongId<struct GroupRankTag, int>;
// Index of a device on its host; says nothing about ranks.
using DeviceOrdinal = StrongId<struct DeviceOrdinalTag, int>;
// Index of a replica in the fleet, from 0.
using ReplicaIndex = StrongId<struct ReplicaIndexTag, int>;
// Numbers a replica's topologies, from 1; only grows.
using Epoch = StrongId<struct EpochTag, uint64_t>;
// Numbers coordinators, from 1; only grows.
using Term = StrongId<struct TermTag, uint64_t>;
// Numbers the steps of an epoch, from 1 without gaps.
using StepNumber = StrongId<struct StepNumberTag, uint64_t>;
// Random number of a worker's process; never 0.
using Incarnation = StrongId<struct IncarnationTag, uint64_t>;
// Digest of (epoch, kind, ordered ranks).
using GroupId = StrongId<struct GroupIdTag, uint64_t>;

}  // namespace muster

template <typename Tag, typename Int>
struct std::hash<muster::StrongId<Tag, Int>> {
  size_t operator()(muster::StrongId<Tag, Int> id) const { return std::hash<Int>()(id.value()); }
};

#endif  // MUSTER_BASE_IDS_H_
