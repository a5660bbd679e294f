// What happened to the fleet, in order: a bounded log for people and programs.
#ifndef MUSTER_COORDINATOR_EVENTS_H_
#define MUSTER_COORDINATOR_EVENTS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/ids.h"
#include "coordinator/change_signal.h"
#include "coordinator/fleet_counters.h"

namespace muster {

// Mirrors muster.v1.EventKind.
enum class EventKind {
  kWorkerEnlisted = 1,
  kWorkerLost = 2,
  kPlanRefused = 3,
  kTopologyPlanned = 4,
  kPhaseDone = 5,
  kServing = 6,
  kEpochFailed = 7,
  kClientExpired = 8,
  kOperationStarted = 9,
  kResizeProgress = 10,
  kResized = 11,
  kRolledBack = 12,
  kOperationEnded = 13,
  kAdopted = 14,
  kWorkerLeaving = 15,
  kWorkerLeft = 16,
  kEpochEnded = 17,
  kReplicaAdded = 18,
  kReplicaRemoved = 19,
};

struct Event {
  uint64_t sequence = 0;  // set by the log: from 1, without gaps
  absl::Time time;        // set by the log
  EventKind kind = EventKind::kWorkerEnlisted;
  std::optional<ReplicaIndex> replica;
  Epoch epoch;  // 0 when none is concerned
  std::optional<GlobalRank> rank;
  std::string worker_id;
  std::string phase;
  std::string message;       // one line for people
  std::string operation_id;  // of the operation concerned, if one is
};

// The last `capacity` events. Thread-safe.
class EventLog {
 public:
  EventLog(const Clock& clock, size_t capacity) : clock_(clock), capacity_(capacity) {}

  // Numbers, dates, logs and keeps `event`, then wakes the subscribers.
  void Append(Event event) ABSL_LOCKS_EXCLUDED(mu_);

  // At most `limit` kept events with a sequence of at least `from`, oldest first.
  std::vector<Event> Read(uint64_t from, size_t limit) const ABSL_LOCKS_EXCLUDED(mu_);

  // The last `limit` of those that are kept, oldest first.
  std::vector<Event> ReadNewest(size_t limit) const ABSL_LOCKS_EXCLUDED(mu_);

  // Of every append, and of what else is to be counted.
  FleetCounters& counters() { return counters_; }

  // Notified after every append.
  ChangeSignal& changes() { return changes_; }

 private:
  const Clock& clock_;
  const size_t capacity_;
  ChangeSignal changes_;
  FleetCounters counters_;

  mutable absl::Mutex mu_;
  uint64_t last_sequence_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<Event> events_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_EVENTS_H_
