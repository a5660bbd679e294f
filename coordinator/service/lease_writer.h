#ifndef MUSTER_COORDINATOR_SERVICE_LEASE_WRITER_H_
#define MUSTER_COORDINATOR_SERVICE_LEASE_WRITER_H_

#include <deque>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/membership.h"
#include "proto/muster/v1/membership.grpc.pb.h"

namespace muster {

// The writing half of an Enlist call, which may outlive it: one write at a time, in order, and
// nothing after the end. Thread-safe.
class LeaseWriter : public LeaseHolder {
 public:
  using Stream = grpc::ServerBidiReactor<v1::EnlistRequest, v1::EnlistResponse>;

  // `stream` lives until End or OnLeaseEnded was called, and until the writes begun have ended.
  explicit LeaseWriter(Stream* stream) : stream_(stream) {}

  // Writes `welcome`, then the notices that came before it, and from now on those that come.
  void Welcome(const v1::Welcome& welcome) ABSL_LOCKS_EXCLUDED(mu_);
  // The write that was under way has ended.
  void OnWriteDone(bool ok) ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the call with `status`, unless it has ended; what is not written yet is dropped.
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);

  void OnEpochAborted(const AbortNotice& notice) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnMayLeave(const std::string& message) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnLeaseEnded(const absl::Status& reason) override { End(reason); }

 private:
  void Write(v1::EnlistResponse response) ABSL_LOCKS_EXCLUDED(mu_);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  Stream* stream_ ABSL_GUARDED_BY(mu_);  // null after the end
  bool welcomed_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;  // the queue's first
  std::deque<v1::EnlistResponse> queue_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_LEASE_WRITER_H_
