// The words of the parallel layout: sizes, groups, placements. Plain values,
// shared by coordinator and workers.
#ifndef MUSTER_BASE_TOPOLOGY_H_
#define MUSTER_BASE_TOPOLOGY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/ids.h"

namespace muster {

// Sizes of the parallel axes, each at least 1.
struct ParallelConfig {
  int tp = 1;
  int cp = 1;
  int pp = 1;
  int replicas = 1;

  // Ranks of one stage, of one replica.
  int stage_size() const { return cp * tp; }
  int world_size() const { return pp * cp * tp; }

  friend bool operator==(const ParallelConfig&, const ParallelConfig&) = default;
};

enum class GroupKind { kStage = 1, kTp = 2, kCp = 3 };

// "STAGE", "TP", "CP".
const char* GroupKindName(GroupKind kind);

// An ordered set of ranks; the index in `ranks` is the group rank.
struct GroupSpec {
  GroupId id;
  GroupKind kind = GroupKind::kStage;
  std::vector<GlobalRank> ranks;

  // "CP[1,3]".
  std::string DebugString() const;
  friend bool operator==(const GroupSpec&, const GroupSpec&) = default;
};

// Digest of (epoch, kind, ordered ranks): two groups of equal size, or of the
// same ranks in another epoch or another order, have different ids.
GroupId DigestGroup(Epoch epoch, GroupKind kind, const std::vector<GlobalRank>& ranks);

// A rank's place on the axes.
struct RankCoordinates {
  int pp_rank = 0;
  int cp_rank = 0;
  int tp_rank = 0;
  friend bool operator==(const RankCoordinates&, const RankCoordinates&) = default;
};

RankCoordinates CoordinatesOf(const ParallelConfig& config, GlobalRank rank);
GlobalRank RankAt(const ParallelConfig& config, const RankCoordinates& coordinates);

// Every group of a replica: STAGE by stage, then TP, then CP, each by its first
// rank. Groups of one rank included.
std::vector<GroupSpec> DeriveGroups(const ParallelConfig& config, Epoch epoch);

// One rank and the worker that holds it.
struct RankPlacement {
  GlobalRank rank;
  std::string worker_id;
  Incarnation incarnation;
  std::string address;        // "host:port" of the worker's services
  std::string local_address;  // the same for this host's callers, "unix:PATH"; may be empty
  friend bool operator==(const RankPlacement&, const RankPlacement&) = default;
};

// An immutable assignment of workers to the ranks of one replica.
struct Topology {
  ReplicaIndex replica;
  Epoch epoch;
  Term term;
  ParallelConfig config;
  std::vector<RankPlacement> ranks;  // ordered by rank; rank 0 leads
  std::vector<GroupSpec> groups;     // DeriveGroups(config, epoch)

  friend bool operator==(const Topology&, const Topology&) = default;
};

// Facts of a model that planning needs; mirrors muster.v1.ModelSpec.
struct ModelSpec {
  std::string architecture;
  std::string name;
  int layers = 0;
  int hidden = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int ffn = 0;
  int vocabulary = 0;
  int max_positions = 0;
  std::string dtype;  // "float32" or "bfloat16"
  std::string digest;
  uint64_t weight_bytes = 0;
  std::vector<int> eos_token_ids;
  int sliding_window = 0;  // positions that a token attends to in every layer; 0: all before it

  friend bool operator==(const ModelSpec&, const ModelSpec&) = default;
};

// Mirrors muster.v1.DeviceReport.
struct DeviceReport {
  std::string kind;  // "cpu" or "cuda"
  DeviceOrdinal ordinal;
  std::string name;
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;
  int threads = 0;

  friend bool operator==(const DeviceReport&, const DeviceReport&) = default;
};

// Mirrors muster.v1.WorkerState.
enum class WorkerState {
  kEnlisted = 1,
  kAssigned = 2,
  kLoaded = 3,
  kWarm = 4,
  kCaptured = 5,
  kAgreed = 6,
  kServing = 7,
  kDraining = 8,
  kFailed = 9,
};
// "ENLISTED", ..., "FAILED".
const char* WorkerStateName(WorkerState state);

// Mirrors muster.v1.Progress.
struct Progress {
  std::string phase;
  uint64_t done = 0;
  uint64_t total = 0;
  std::string unit;

  friend bool operator==(const Progress&, const Progress&) = default;
};

// Memory held under one tag, in bytes; mirrors muster.v1.LedgerEntry.
struct LedgerEntry {
  std::string tag;
  uint64_t bytes = 0;

  friend bool operator==(const LedgerEntry&, const LedgerEntry&) = default;
};

// What one rank reports of one epoch in its heartbeats; mirrors
// muster.v1.EpochReport.
struct EpochReport {
  ReplicaIndex replica;
  Epoch epoch;
  WorkerState state = WorkerState::kEnlisted;
  Progress progress;
  StepNumber step;
  uint64_t kv_blocks_used = 0;
  uint64_t kv_blocks_total = 0;
  std::string failure;       // why it is FAILED, one line; else empty
  uint64_t tokens = 0;       // rows of all steps run, padding not included
  int queued_requests = 0;   // on the leader
  std::vector<int> buckets;  // rows of its graphs, largest first; none before Capture

  friend bool operator==(const EpochReport&, const EpochReport&) = default;
};

// A client that lost its sequences, having been silent for the length of its lease; mirrors
// muster.v1.ClientExpiry.
struct ExpiryReport {
  ReplicaIndex replica;
  Epoch epoch;
  std::string client_id;  // 1 to 128 bytes of any kind
  absl::Duration lease;
  int sequences = 0;
  uint64_t kv_blocks = 0;

  friend bool operator==(const ExpiryReport&, const ExpiryReport&) = default;
};

}  // namespace muster

#endif  // MUSTER_BASE_TOPOLOGY_H_
