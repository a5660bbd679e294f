// Who takes which rank: a pure function of sizes, workers and model.
#ifndef MUSTER_COORDINATOR_PLACEMENT_H_
#define MUSTER_COORDINATOR_PLACEMENT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/topology.h"
#include "coordinator/rank_sizes.h"

namespace muster {

// A worker that may take a rank.
struct Candidate {
  std::string worker_id;
  Incarnation incarnation;
  std::string address;
  ModelSpec model;
  std::string local_address;
  DeviceReport device;
  std::string build;
  std::string domain;    // whose workers can open each other's memory
  bool drained = false;  // gets no rank
};

// Workers that can be ranks of one replica: they open each other's memory, and run the same code.
struct Team {
  std::string domain;
  std::string build;
  friend auto operator<=>(const Team&, const Team&) = default;
};
Team TeamOf(const Candidate& worker);

// What a worker must be like to get a rank.
struct Pattern {
  ModelSpec model;           // the same weights in the same type
  std::optional<Team> team;  // none: of any
};

// A replica to place.
struct ReplicaSlot {
  ReplicaIndex replica;
  Epoch epoch;                       // of the topology that is planned
  std::optional<Topology> previous;  // its survivors keep their places
};

// Measured memory of one rank, once it serves.
struct RankLedger {
  GlobalRank rank;
  std::vector<LedgerEntry> entries;
  uint64_t kv_blocks = 0;
  int block_tokens = 0;
  std::vector<int> buckets;  // rows of its graphs, largest first
};

struct Plan {
  std::vector<Topology> topologies;       // one per slot, in order
  std::vector<RankFootprint> footprints;  // per rank of a replica, equal for all replicas
};

struct PlanRequest {
  ParallelConfig config;
  Term term;
  std::vector<ReplicaSlot> slots;
  std::vector<Candidate> inventory;  // workers that are free or in a slot's previous topology
  std::optional<Pattern> pattern;    // none: one model of all
  bool one_per_domain = false;       // no two of the slots in the same
};

// The model that all workers hold. FAILED_PRECONDITION names the workers that hold another one than
// most do, or says that no worker is enlisted.
absl::StatusOr<ModelSpec> CommonModel(const std::vector<Candidate>& inventory);
// The rank that a worker has, by its id; null for none.
const RankPlacement* FindWorker(const Topology& topology, absl::string_view worker_id);

// "llama in float32 (digest 00000000000000aa)".
std::string DescribeModel(const ModelSpec& model);

// Assigns workers to every rank of every slot, those of a slot all of one team: of that with most
// workers of the slot's previous topology, or else, so that replicas spread and have standbys, of
// that with most to spare in the domain with fewest of the slots. A worker of the previous topology
// keeps its (pp, cp, tp) place where the new sizes have it, known by worker_id, so that a restarted
// one returns to it; the rest of the ranks are filled by the other workers in the order of their
// ids. Workers that are drained, or not like the pattern, get none. Errors: those of CheckConfig
// and CommonModel, and that of TooFewFit with both numbers.
absl::StatusOr<Plan> PlanTopology(const PlanRequest& request);

// Orders names as people do: "w2" before "w10".
bool NaturalLess(absl::string_view a, absl::string_view b);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_PLACEMENT_H_
