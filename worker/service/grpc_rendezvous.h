#ifndef MUSTER_WORKER_SERVICE_GRPC_RENDEZVOUS_H_
#define MUSTER_WORKER_SERVICE_GRPC_RENDEZVOUS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "base/ids.h"
#include "base/metrics/counters.h"
#include "worker/collective/rendezvous.h"

namespace grpc {
class Channel;
class ClientContext;
}  // namespace grpc

namespace muster {

// Whose calls they are.
struct RendezvousCaller {
  ReplicaIndex replica;
  Epoch epoch;
  Incarnation incarnation;
};

// Of all epochs of a worker.
struct RendezvousCounters {
  DurationHistogram waits;
  Counter failures;
};

// The rendezvous of one (replica, epoch), held by the coordinator. The coordinator enforces each
// timeout; a coordinator that does not answer is given a few seconds more, then the call fails with
// DEADLINE_EXCEEDED, and one that cannot be reached with UNAVAILABLE, both without a detail.
// Thread-safe; no call may be running when it is destroyed.
class GrpcRendezvous : public Rendezvous {
 public:
  // `counters` outlives it.
  GrpcRendezvous(std::shared_ptr<grpc::Channel> coordinator, const RendezvousCaller& caller,
                 RendezvousCounters& counters);
  ~GrpcRendezvous() override;

  absl::StatusOr<std::vector<std::string>> AllGather(const Group& group, absl::string_view key,
                                                     absl::string_view value,
                                                     absl::Duration timeout) override
      ABSL_LOCKS_EXCLUDED(mu_);
  // Returns once the coordinator knows, within a second in any case. Also after Cancel.
  void Fail(const Group& group, const absl::Status& reason) override;
  // The first reason stays.
  void Cancel(const absl::Status& reason) override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::StatusOr<std::vector<std::string>> Gather(const Group& group, absl::string_view key,
                                                  absl::string_view value, absl::Duration timeout)
      ABSL_LOCKS_EXCLUDED(mu_);
  // OK, or why this rank's waits are over.
  absl::Status Begin(grpc::ClientContext* call) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status End(grpc::ClientContext* call) ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const std::shared_ptr<grpc::Channel> coordinator_;
  const RendezvousCaller caller_;
  RendezvousCounters& counters_;

  absl::Mutex mu_;
  absl::Status cancelled_ ABSL_GUARDED_BY(mu_);  // OK until Cancel
  absl::flat_hash_set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_GRPC_RENDEZVOUS_H_
