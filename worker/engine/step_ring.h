// How encoded steps reach the followers of one host.
#ifndef MUSTER_WORKER_ENGINE_STEP_RING_H_
#define MUSTER_WORKER_ENGINE_STEP_RING_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/device/ledger.h"

namespace muster {

// One rank's end of a bounded ring: the leader pushes, every follower pops each message once, in
// order. Push and Pop belong to one thread, Abort to any. The destructor aborts: peers that wait
// for an end that is gone fail.
class StepRing {
 public:
  virtual ~StepRing() = default;

  // Leader. Waits while the ring is full: DEADLINE_EXCEEDED names the follower that is behind.
  // INVALID_ARGUMENT when `bytes` exceeds the ring's messages; the reason of an abort.
  virtual absl::Status Push(absl::string_view bytes, absl::Duration timeout) = 0;

  // Leader. Waits until every follower has taken all that was pushed, and with it is through with
  // all but the last message. Errors as of Push.
  virtual absl::Status AwaitTaken(absl::Duration timeout) = 0;

  // Follower. Waits for the next message, which replaces `bytes`: as long as there is none, until
  // an abort, whose reason it returns; what was pushed before comes first. DATA_LOSS when the ring
  // holds no message where one should be.
  virtual absl::Status Pop(std::string& bytes) = 0;

  // Fails the waits of all ends, now and later. The first reason stands.
  virtual void Abort(const absl::Status& reason) = 0;

  // Leader: what a follower opens, for members of the epoch only.
  virtual std::string Handle() const = 0;
  // Leader: all have opened it, and nobody can any more.
  virtual void StopExporting() = 0;
};

class StepRingBackend {
 public:
  virtual ~StepRingBackend() = default;

  struct Options {
    int followers = 0;         // 1 to 15
    size_t message_bytes = 0;  // of the longest message
  };
  // The leader's end. RESOURCE_EXHAUSTED. `ledger` outlives it.
  virtual absl::StatusOr<std::unique_ptr<StepRing>> Create(const Options& options,
                                                           Ledger& ledger) = 0;
  // The end of follower `index`, from 0. UNAVAILABLE when it cannot be opened.
  virtual absl::StatusOr<std::unique_ptr<StepRing>> Open(absl::string_view handle, int index) = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_STEP_RING_H_
