// Clients that lost their sequences, until the coordinator is told.
#ifndef MUSTER_WORKER_SERVICE_EXPIRY_OUTBOX_H_
#define MUSTER_WORKER_SERVICE_EXPIRY_OUTBOX_H_

#include <deque>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/topology.h"

namespace muster {

// Thread-safe; never waits for anything but its lock.
class ExpiryOutbox {
 public:
  // What a heartbeat has room for.
  static constexpr size_t kMost = 64;

  // Where there are too many, the oldest is forgotten.
  void Put(ExpiryReport expiry) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (expiries_.size() == kMost) expiries_.pop_front();
    expiries_.push_back(std::move(expiry));
  }

  // All, oldest first; they are then gone from here.
  std::vector<ExpiryReport> Take() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    const std::deque<ExpiryReport> taken = std::exchange(expiries_, {});
    return {taken.begin(), taken.end()};
  }

 private:
  absl::Mutex mu_;
  std::deque<ExpiryReport> expiries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_EXPIRY_OUTBOX_H_
