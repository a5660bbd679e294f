// Where the ranks of an epoch meet before they share memory.
#ifndef MUSTER_COORDINATOR_RENDEZVOUS_H_
#define MUSTER_COORDINATOR_RENDEZVOUS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/topology.h"

namespace muster {

// Who meets, where: one group of one epoch, under a key, called by a process of one incarnation.
struct MeetingPlace {
  ReplicaIndex replica;
  Epoch epoch;
  GroupId group;
  std::string key;  // 1 to 128 bytes
  Incarnation incarnation;
  std::string worker_id;  // whose certificate the caller has; empty where that is unknown
};

struct AllGatherCall {
  MeetingPlace place;
  GroupRank rank;  // of the caller
  // A value of at most 1 MiB, or the caller's failure, which fails the whole epoch.
  absl::StatusOr<std::string> contribution;
  absl::Duration timeout;  // more than 0, at most 10 minutes
};

// Values in group rank order; shared by all callers.
using GatheredValues = std::shared_ptr<const std::vector<std::string>>;
// Called exactly once, on any thread, with none of the board's locks held.
using GatherDone = std::function<void(absl::StatusOr<GatheredValues>)>;

// What is known of a rank that others miss.
struct WorkerNote {
  std::string phase;  // "warmup/open", or empty
  std::string text;   // "in warmup/open, 3 of 7 handles; heartbeat 1.2s ago"
};

// Thread-safe. Every wait ends: all ranks arrived, its deadline, a failure of the epoch, or Close.
// Errors of all calls: INVALID_ARGUMENT (unknown group, rank outside it, key, value or timeout out
// of range, the same rank with another value), FAILED_PRECONDITION (STALE_EPOCH: an epoch that is
// not held, or a caller that does not hold a rank of it), PERMISSION_DENIED (the certificate of
// another worker than the one that holds the rank), RESOURCE_EXHAUSTED (an epoch with more
// than 4,096 keys or 256 MiB), and the epoch's failure.
class RendezvousBoard {
 public:
  // `describe` tells what is known of a worker; it must not call the board. `clock` outlives this.
  using DescribeWorker = std::function<WorkerNote(const std::string& worker_id)>;
  RendezvousBoard(const Clock& clock, DescribeWorker describe)
      : clock_(clock), describe_(std::move(describe)) {}

  // Lets the ranks of `topology` meet, in its groups.
  void BeginEpoch(const Topology& topology) ABSL_LOCKS_EXCLUDED(mu_);
  // All waits on the epoch, now and later, end with `reason`. The first failure stays.
  void FailEpoch(ReplicaIndex replica, Epoch epoch, const absl::Status& reason)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Forgets the epoch; its calls are stale from now on.
  void RetireEpoch(ReplicaIndex replica, Epoch epoch) ABSL_LOCKS_EXCLUDED(mu_);

  // `done` gets every rank's value once all ranks of the group have called with this key. A
  // repeated call of a rank joins, or repeats the result. The first deadline that passes fails the
  // meeting for all, DEADLINE_EXCEEDED, and names the missing ranks.
  void AllGather(const AllGatherCall& call, GatherDone done) ABSL_LOCKS_EXCLUDED(mu_);

  // ALREADY_EXISTS for another value under a published key.
  absl::Status Publish(const MeetingPlace& place, const std::string& value)
      ABSL_LOCKS_EXCLUDED(mu_);
  // `done` gets the one value that a rank publishes.
  void Await(const MeetingPlace& place, absl::Duration timeout, GatherDone done)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Ends the waits whose deadline has passed.
  void Tick() ABSL_LOCKS_EXCLUDED(mu_);
  // Ends all waits, now and later, with `reason`.
  void Close(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

  // Calls that wait now.
  size_t waiting() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Waiter {
    absl::Time deadline;
    absl::Duration timeout;
    GatherDone done;
  };
  // One key: a value per group rank, or one published value.
  struct Meeting {
    std::vector<std::optional<std::string>> values;  // until nothing is missing
    size_t missing = 0;
    std::vector<Waiter> waiters;
    GatheredValues result;  // once nothing is missing
    absl::Status failure;   // once it has failed
  };
  enum class MeetingKind { kGather, kPublished };
  struct MeetingKey {
    GroupId group;
    MeetingKind kind;
    std::string key;
    friend auto operator<=>(const MeetingKey&, const MeetingKey&) = default;
  };
  struct EpochBoard {
    Topology topology;
    std::map<MeetingKey, Meeting> meetings;
    size_t bytes = 0;  // of all values
    absl::Status failure;
  };
  // What is called once the lock is gone.
  using Completions = std::vector<std::pair<GatherDone, absl::StatusOr<GatheredValues>>>;

  static void Run(Completions completions);
  static void FinishMeeting(Meeting& meeting, const absl::StatusOr<GatheredValues>& result,
                            Completions& completions);
  // Ends the waits whose deadline has passed, and with them all of a gather: a rank that has given
  // up does not come back.
  void FinishLate(const EpochBoard& board, const MeetingKey& key, Meeting& meeting, absl::Time now,
                  Completions& completions) const;
  static void FailLocked(EpochBoard& board, const absl::Status& reason, Completions& completions);

  absl::StatusOr<EpochBoard*> FindBoard(const MeetingPlace& place)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Meeting*> FindMeeting(EpochBoard& board, const GroupSpec& group, MeetingKind kind,
                                       const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // INVALID_ARGUMENT when a rank that contributed before comes with another value.
  static absl::Status CheckSame(const Meeting& meeting, size_t index, const std::string& value);
  absl::Status Contribute(EpochBoard& board, Meeting& meeting, size_t index,
                          const std::string& value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Join(const AllGatherCall& call, GatherDone& done, Completions& completions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status JoinAwait(const MeetingPlace& place, absl::Duration timeout, GatherDone& done,
                         Completions& completions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Settle(Meeting& meeting, absl::Duration timeout, GatherDone& done, Completions& completions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status DescribeMissing(const EpochBoard& board, const MeetingKey& key,
                               const Meeting& meeting, absl::Duration timeout) const;

  const Clock& clock_;
  const DescribeWorker describe_;

  mutable absl::Mutex mu_;
  absl::Status closed_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<ReplicaIndex, Epoch>, EpochBoard> boards_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_RENDEZVOUS_H_
