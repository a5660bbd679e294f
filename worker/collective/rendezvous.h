// How ranks meet before they share memory. Over gRPC in a fleet, in one process
// in tests.
#ifndef MUSTER_WORKER_COLLECTIVE_RENDEZVOUS_H_
#define MUSTER_WORKER_COLLECTIVE_RENDEZVOUS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/collective/group.h"

namespace muster {

// One rank's side, for one epoch. Thread-safe. Every wait ends: by all ranks
// arriving, by the timeout (which names the missing ranks), by a rank's
// failure, or by Cancel.
class Rendezvous {
 public:
  virtual ~Rendezvous() = default;

  // Every member's value, in group rank order. `key` is unique within (epoch,
  // group); `value` is at most 1 MiB. DEADLINE_EXCEEDED, UNAVAILABLE (a rank is
  // lost), ABORTED (a rank failed): each names the ranks.
  virtual absl::StatusOr<std::vector<std::string>> AllGather(const Group& group,
                                                             absl::string_view key,
                                                             absl::string_view value,
                                                             absl::Duration timeout) = 0;

  // Tells all ranks of the epoch that this one failed: whoever waits on a
  // rendezvous of it now or later gets ABORTED with this reason. Returns
  // without waiting for them.
  virtual void Fail(const Group& group, const absl::Status& reason) = 0;

  // Ends this rank's waits, now and later, with `reason`. Local.
  virtual void Cancel(const absl::Status& reason) = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_RENDEZVOUS_H_
