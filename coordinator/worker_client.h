// The workers as the coordinator drives them.
#ifndef MUSTER_COORDINATOR_WORKER_CLIENT_H_
#define MUSTER_COORDINATOR_WORKER_CLIENT_H_

#include <cstdint>
#include <functional>
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
  std::string agreement_digest;     // capture
  Takeover takeover;                // activate
};

// Thread-safe.
class WorkerClient {
 public:
  using OnProgress = std::function<void(const Progress&)>;
  using OnPhaseDone = std::function<void(absl::StatusOr<PhaseResult>)>;
  using OnReleased = std::function<void(absl::Status)>;

  virtual ~WorkerClient() = default;

  // Starts `phase` on the target. `topology` is that of the target's epoch and is copied;
  // `wait_bound` bounds each wait within the phase, `deadline` the whole. Both callbacks come from
  // another thread, never from within this call, and `done` exactly once and last. A worker that
  // cannot be reached is UNAVAILABLE with reason RANK_LOST.
  virtual void RunPhase(FormingPhase phase, const RankTarget& target, const Topology& topology,
                        absl::Duration wait_bound, absl::Duration deadline, OnProgress on_progress,
                        OnPhaseDone done) = 0;

  // Makes the target give back all it holds of the epoch, and tell whoever still waits on it `why`
  // it failed, if it did. `done` as above.
  virtual void Release(const RankTarget& target, const absl::Status& why, absl::Duration deadline,
                       OnReleased done) = 0;

  // That process is gone: ends its calls, as for a worker that cannot be reached, and forgets it.
  virtual void Forget(const std::string& address, Incarnation incarnation) = 0;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_WORKER_CLIENT_H_
