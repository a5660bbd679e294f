// Collects the spans of many workers at once, and what their clocks show.
#ifndef MUSTER_CLIENT_CTL_TRACE_COLLECTION_H_
#define MUSTER_CLIENT_CTL_TRACE_COLLECTION_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/ctl/fleet_address.h"
#include "client/ctl/trace_events.h"

namespace grpc {
class ClientContext;
}  // namespace grpc

namespace muster::ctl {

// What a clock is ahead of this host's, and the round trip that showed it.
struct ClockOffset {
  absl::Duration offset;
  absl::Duration round_trip = absl::InfiniteDuration();
};

// Asks `read` for the other clock's time some times over: it is taken to have been read half-way
// between request and response, of the shortest round trip. The error is at most half of that; an
// offset that is no larger may be none, and counts as none: clocks of one host agree better than
// that.
absl::StatusOr<ClockOffset> MeasureClock(const std::function<absl::Time()>& now,
                                         const std::function<absl::StatusOr<absl::Time>()>& read);

class TraceCollection {
 public:
  explicit TraceCollection(std::vector<WorkerAddress> workers) : workers_(std::move(workers)) {}

  // Collects from all for so long, or until Stop. By worker; a worker that was lost meanwhile, or
  // cannot be traced, has the reason instead.
  std::vector<absl::StatusOr<WorkerTrace>> Run(absl::Duration duration) ABSL_LOCKS_EXCLUDED(mu_);
  // Ends Run with what was collected so far. Any thread.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::StatusOr<WorkerTrace> Collect(const WorkerAddress& worker, absl::Duration duration)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Begin(grpc::ClientContext& call) ABSL_LOCKS_EXCLUDED(mu_);
  // Whether it was stopped.
  bool End(grpc::ClientContext& call) ABSL_LOCKS_EXCLUDED(mu_);

  const std::vector<WorkerAddress> workers_;

  absl::Mutex mu_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_TRACE_COLLECTION_H_
