// How a worker that was asked to end leaves the fleet.
#ifndef MUSTER_WORKER_DEPARTURE_H_
#define MUSTER_WORKER_DEPARTURE_H_

#include <functional>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace muster {

// Knows whether the worker is asked to end, whether there is a coordinator to hand its ranks over,
// and when it may go. Thread-safe.
class Departure {
 public:
  enum class Outcome {
    kReleased,  // the coordinator says that the worker holds nothing any more
    kAlone,     // there is no coordinator, or nothing that it could take
    kTimeout,   // the worker still holds something
    kCutShort,  // by End
  };
  // How long a worker waits for a coordinator that went away in the meantime, or that does not
  // answer one which holds nothing.
  static constexpr absl::Duration kPatience = absl::Seconds(1);

  // `clock` outlives this.
  explicit Departure(const Clock& clock = Clock::Real()) : clock_(clock) {}

  // The worker is to end in `timeout` at the latest.
  void Begin(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);
  // Until then; none as long as it is not to end.
  std::optional<absl::Duration> time_left() const ABSL_LOCKS_EXCLUDED(mu_);

  // What the coordinator's stream tells.
  void OnEnlisted() ABSL_LOCKS_EXCLUDED(mu_);
  void OnParted() ABSL_LOCKS_EXCLUDED(mu_);
  // With what became of the rank, for people.
  void OnMayLeave(const std::string& message) ABSL_LOCKS_EXCLUDED(mu_);
  // There is nothing to wait for.
  void End() ABSL_LOCKS_EXCLUDED(mu_);

  // Waits until the worker may go, or must; after Begin. `holds_nothing` is asked every few
  // milliseconds.
  Outcome Await(const std::function<bool()>& holds_nothing) ABSL_LOCKS_EXCLUDED(mu_);
  // That of OnMayLeave.
  std::string message() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const Clock& clock_;

  mutable absl::Mutex mu_;
  std::optional<absl::Time> deadline_ ABSL_GUARDED_BY(mu_);
  bool enlisted_ ABSL_GUARDED_BY(mu_) = false;
  bool may_leave_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::string message_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEPARTURE_H_
