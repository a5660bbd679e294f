// The workers as the coordinator drives them.
#ifndef MUSTER_COORDINATOR_WORKER_CLIENT_H_
#define MUSTER_COORDINATOR_WORKER_CLIENT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/takeover.h"
#include "base/topology.h"

namespace muster {

// How a replica is formed: on all ranks at once, one after another.
enum class FormingPhase { kAssign, kLoad, kWarmup, kCapture, kActivate };

// "assign", "load", "warmup", "capture", "activate".
const char* FormingPhaseName(FormingPhase phase);

// One rank of one topology, and the process that holds it.
struct RankTarget {
  RankPlacement placement;
  ReplicaIndex replica;
  Epoch epoch;
  Term term;
};

// What a phase gave; each phase sets what it knows.
struct PhaseResult {
  std::vector<LedgerEntry> ledger;  // warmup, capture
  uint64_t kv_blocks = 0;           // capture
  int block_tokens = 0;             // capture
  std::vector<int> buckets;         // capture: rows of the graphs, largest first
  std::string agreement_digest;     // capture
  Takeover takeover;                // activate
};

// What a phase is told beside its target; each phase reads what concerns it.
struct PhaseInputs {
  absl::Duration wait_bound = absl::Seconds(60);  // of each wait within the phase
  absl::Duration deadline = absl::Hours(1);       // of the whole
  // Assign.
  std::optional<Topology> predecessor;  // serves now, and is to be followed
  std::vector<int> buckets;             // rows of the graphs, largest first; none: the worker's own
  uint64_t reserve_bytes = 0;           // to leave free for a topology that follows
  // Activate of a topology that follows another.
  Epoch from_epoch;
  std::string agreement_digest;
  absl::Duration takeover_timeout;
  std::vector<SequenceName> drop;  // that may be lost
};

// Thread-safe.
class WorkerClient {
 public:
  using OnProgress = std::function<void(const Progress&)>;
  using OnPhaseDone = std::function<void(absl::StatusOr<PhaseResult>)>;
  using OnDescribed = std::function<void(absl::StatusOr<CacheSummary>)>;
  using OnReleased = std::function<void(absl::Status)>;
  using OnDrained = std::function<void(absl::StatusOr<int> sequences)>;

  virtual ~WorkerClient() = default;

  // Starts `phase` on the target. `topology` is that of the target's epoch; all that is passed is
  // copied. Both callbacks come from another thread, never from within this call, and `done`
  // exactly once and last. A worker that cannot be reached is UNAVAILABLE with reason RANK_LOST.
  virtual void RunPhase(FormingPhase phase, const RankTarget& target, const Topology& topology,
                        const PhaseInputs& inputs, OnProgress on_progress, OnPhaseDone done) = 0;

  // Asks the leader of an epoch that serves what its sequences hold. `done` as above.
  virtual void DescribeCache(const RankTarget& target, absl::Duration deadline,
                             OnDescribed done) = 0;

  // Has the leader of an epoch that serves take no requests any more and answer those in flight,
  // within `timeout`: how many sequences it then holds. `done` as above.
  virtual void Drain(const RankTarget& target, absl::Duration timeout, OnDrained done) = 0;

  // Makes the target give back all it holds of the epoch, and tell whoever still waits on it `why`
  // it failed, if it did. `done` as above.
  virtual void Release(const RankTarget& target, const absl::Status& why, absl::Duration deadline,
                       OnReleased done) = 0;

  // That process is gone: ends its calls, as for a worker that cannot be reached, and forgets it.
  virtual void Forget(const std::string& address, Incarnation incarnation) = 0;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_WORKER_CLIENT_H_
