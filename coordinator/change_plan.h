// How a replica gets from one topology to another while it serves: a pure function of sizes,
// workers, model and what its sequences hold.
#ifndef MUSTER_COORDINATOR_CHANGE_PLAN_H_
#define MUSTER_COORDINATOR_CHANGE_PLAN_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/takeover.h"
#include "base/topology.h"
#include "coordinator/placement.h"

namespace muster {

// Mirrors muster.v1.RankChange.Role.
enum class RankRole { kSurvivor = 1, kRecruit = 2, kLeaver = 3 };

// Mirrors muster.v1.RankChange.
struct RankChange {
  std::string worker_id;
  RankRole role = RankRole::kSurvivor;
  GlobalRank rank;  // of a leaver: the one that it leaves
  uint64_t weight_bytes_loaded = 0;
  uint64_t weight_bytes_shared = 0;
  uint64_t peak_bytes = 0;   // while both epochs are held
  uint64_t total_bytes = 0;  // of the device; 0 when unknown
  uint64_t kv_blocks_peak = 0;
  uint64_t kv_blocks_total = 0;
  friend bool operator==(const RankChange&, const RankChange&) = default;
};

// Mirrors muster.v1.BlockFlow: ranks of the topology before and after.
struct BlockFlow {
  GlobalRank from;
  GlobalRank to;
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  friend bool operator==(const BlockFlow&, const BlockFlow&) = default;
};

// Mirrors muster.v1.ReplicaChange.
struct ReplicaChange {
  Topology from;
  Topology to;
  std::vector<RankChange> ranks;  // survivors in rank order, recruits, then leavers
  std::vector<BlockFlow> flows;   // by (from, to)
  uint64_t kv_blocks_moved = 0;   // each counted once, however many tp ranks hold parts of it
  uint64_t kv_blocks_kept = 0;
  uint64_t kv_bytes_moved = 0;
  uint64_t capacity_tokens_before = 0;
  uint64_t capacity_tokens_after = 0;
  uint64_t tokens_to_rebuild = 0;
  std::vector<SequenceName> lost_sequences;  // the first of lost_count
  int lost_count = 0;
  absl::Duration predicted_prepare;
  absl::Duration predicted_pause;
  std::string note;  // what changes beside the sizes, once it is done; set by whoever asks for it
};

struct ChangeRequest {
  Topology current;  // that serves
  ParallelConfig config;
  Epoch epoch;  // of the new topology
  Term term;
  // Workers without a rank, and those of `current`; but for the excluded, which get no rank.
  std::vector<Candidate> inventory;
  std::set<std::string> excluded;  // worker ids
  CacheSummary cache;
  std::vector<RankLedger> ledgers;  // of `current`, by rank; may be empty
  absl::Duration formed_in;         // what Load, Warmup and Capture of `current` took
  CpRange range;
};

// Survivors keep their (pp, cp, tp) places and the leader stays; recruits come in the order of
// their names. Block b of a sequence lives on cp rank b % cp: it stays where that is the same rank
// on the same worker, and is copied otherwise, while its source keeps it. Another tp changes the
// blocks themselves: then none is moved, all tokens are to be computed again, and each rank has as
// many blocks as the memory of its former ones holds. q, k, v and norms of a survivor are shared
// between the epochs while tp stays, its other weights while cp stays too.
//
// Recruits are like the leader, in model and build; others are left where they are.
//
// Errors: those of CheckConfig; INVALID_ARGUMENT (PLAN_REFUSED) for a cp outside the range; that of
// TooFewFit; FAILED_PRECONDITION (WRONG_STATE) when the leader is excluded; RESOURCE_EXHAUSTED
// (KV_CAPACITY) when a rank would hold more blocks on the way than it has room for, naming sizes
// that do, and (OUT_OF_MEMORY) when a rank lacks memory for both epochs.
absl::StatusOr<ReplicaChange> PlanChange(const ChangeRequest& request);

// How long no step runs. A takeover within the same tp takes kPauseRoundTrips rounds through all
// ranks, and copies in them the block that each active sequence is writing to, if any block goes
// elsewhere; one to another tp computes all tokens again.
absl::Duration PredictPause(const CacheSummary& cache, const ReplicaChange& change);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_CHANGE_PLAN_H_
