// Who is enlisted: a lease per worker, ended by a broken connection or by silence.
#ifndef MUSTER_COORDINATOR_MEMBERSHIP_H_
#define MUSTER_COORDINATOR_MEMBERSHIP_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/topology.h"

namespace muster {

// What a worker says of itself when it enlists.
struct WorkerInfo {
  std::string worker_id;
  Incarnation incarnation;
  std::string address;  // "host:port" of its services
  DeviceReport device;
  ModelSpec model;
  std::string build;
  std::vector<EpochReport> epochs;  // held from an earlier lease
  std::string local_address;        // "unix:PATH" of the same services; may be empty
  std::vector<Topology> serving;    // of those of `epochs` that serve
  Term term;                        // the highest seen; 0: none
  std::string domain;               // whose workers can open each other's memory; may be empty
};

// A member and the newest that is known of it.
struct WorkerView {
  WorkerInfo info;
  absl::Time last_heartbeat;
  uint64_t report = 0;       // number of its newest report, among those of all workers
  uint64_t progress = 0;     // the worker's own count of getting on
  absl::Time last_progress;  // when that count last grew, or a call's stream reported
  std::vector<EpochReport> epochs;
};

// Tells a worker to give up every wait on an epoch.
struct AbortNotice {
  ReplicaIndex replica;
  Epoch epoch;
  absl::Status reason;
};

// The worker's end of a lease. Called from any thread, under locks: must not block nor call
// Membership.
class LeaseHolder {
 public:
  virtual ~LeaseHolder() = default;
  virtual void OnEpochAborted(const AbortNotice& notice) = 0;
  // The worker, which is leaving, holds nothing any more; `message` says what became of its rank.
  virtual void OnMayLeave(const std::string& message) = 0;
  // The lease is over; nothing is called afterwards.
  virtual void OnLeaseEnded(const absl::Status& reason) = 0;
};

class MembershipListener {
 public:
  virtual ~MembershipListener() = default;
  // One at a time, in the order in which it happened; the registry shows the change already. May
  // call Snapshot, ReportProgress and Abort.
  virtual void OnEnlisted(const WorkerInfo& worker) = 0;
  virtual void OnLost(const WorkerInfo& worker, const absl::Status& reason) = 0;
  virtual void OnClientExpired(const WorkerInfo& worker, const ExpiryReport& expiry) = 0;
  // It is about to end, in `time_left` at the latest; told again and again.
  virtual void OnLeaving(const WorkerInfo& worker, absl::Duration time_left) = 0;
};

using LeaseId = StrongId<struct LeaseIdTag, uint64_t>;

// Thread-safe.
class Membership {
 public:
  struct Options {
    absl::Duration lease = absl::Milliseconds(1500);  // longest silence
  };
  // `listener` may be null; `clock` and it outlive this.
  Membership(const Options& options, const Clock& clock, MembershipListener* listener)
      : options_(options), clock_(clock), listener_(listener) {}

  // ALREADY_EXISTS while another incarnation holds a lease under the same id. The same incarnation
  // again loses its old lease first: what its old connection was told in between is unknown.
  absl::StatusOr<LeaseId> Enlist(const WorkerInfo& worker, std::shared_ptr<LeaseHolder> holder)
      ABSL_LOCKS_EXCLUDED(order_mu_, mu_);

  // Ignored when the lease is over.
  void Heartbeat(LeaseId lease, uint64_t progress, std::vector<EpochReport> epochs)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Clients of the worker that have lost their sequences, each to be told of once. Ignored when the
  // lease is over.
  void ReportExpiries(LeaseId lease, const std::vector<ExpiryReport>& expiries)
      ABSL_LOCKS_EXCLUDED(order_mu_, mu_);

  // The worker is about to end. Ignored when the lease is over.
  void ReportLeaving(LeaseId lease, absl::Duration time_left) ABSL_LOCKS_EXCLUDED(order_mu_, mu_);

  // The worker is lost, unless the lease is over already. `why` is for people, such as "its
  // connection broke".
  void EndLease(LeaseId lease, absl::string_view why) ABSL_LOCKS_EXCLUDED(order_mu_, mu_);

  // Ends the leases of workers that were silent for too long. Call it several times per lease: a
  // longer gap is this process' own pause, in which it could not hear anybody.
  void Tick() ABSL_LOCKS_EXCLUDED(order_mu_, mu_);

  // Ends all leases without telling the listener, and refuses new ones with `reason`.
  void Close(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(order_mu_, mu_);

  // Newer than the last heartbeat: what the worker reported in a call's own stream.
  void ReportProgress(const std::string& worker_id, ReplicaIndex replica, Epoch epoch,
                      const Progress& progress) ABSL_LOCKS_EXCLUDED(mu_);

  // Tells a worker, if it is still this incarnation.
  void Abort(const std::string& worker_id, Incarnation incarnation, const AbortNotice& notice)
      ABSL_LOCKS_EXCLUDED(mu_);

  // The same, that it may leave.
  void LetGo(const std::string& worker_id, Incarnation incarnation, const std::string& message)
      ABSL_LOCKS_EXCLUDED(mu_);

  // By worker id.
  std::vector<WorkerView> Snapshot() const ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<WorkerView> Find(const std::string& worker_id) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Member {
    LeaseId lease;
    WorkerView view;
    std::shared_ptr<LeaseHolder> holder;
  };

  absl::StatusOr<LeaseId> Admit(const WorkerInfo& worker, std::shared_ptr<LeaseHolder> holder)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<LeaseId> LeaseOf(const WorkerInfo& worker) const ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<WorkerInfo> HolderOf(LeaseId lease) const ABSL_LOCKS_EXCLUDED(mu_);
  // Null unless the worker is this incarnation.
  std::shared_ptr<LeaseHolder> FindHolder(const std::string& worker_id,
                                          Incarnation incarnation) const ABSL_LOCKS_EXCLUDED(mu_);
  void End(LeaseId lease, const absl::Status& reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(order_mu_)
      ABSL_LOCKS_EXCLUDED(mu_);
  Member* FindLease(LeaseId lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgiveOwnPause(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const Clock& clock_;
  MembershipListener* const listener_;

  // Held over a change and its announcement, so that they are announced in order. Taken before mu_.
  absl::Mutex order_mu_ ABSL_ACQUIRED_BEFORE(mu_);
  mutable absl::Mutex mu_;
  uint64_t last_lease_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t last_report_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status closed_ ABSL_GUARDED_BY(mu_);
  bool last_tick_known_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time last_tick_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Member> members_ ABSL_GUARDED_BY(mu_);  // by worker id
};

// "in warmup/exchange, 3 of 7 handles", or "in no phase".
std::string DescribeProgress(const Progress& progress);

// "client 'bench-7' was silent for 10 min: 3 sequences and 12 KV blocks were given back".
std::string DescribeExpiry(const ExpiryReport& expiry);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_MEMBERSHIP_H_
