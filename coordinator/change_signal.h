// "Something changed": wakes whoever subscribed, who then reads the new state by itself.
#ifndef MUSTER_COORDINATOR_CHANGE_SIGNAL_H_
#define MUSTER_COORDINATOR_CHANGE_SIGNAL_H_

#include <cstdint>
#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace muster {

// Thread-safe.
class ChangeSignal {
 public:
  // Ends with its destruction, after which the callback neither runs nor will run. Outlived by its
  // signal.
  class Subscription {
   public:
    Subscription() = default;
    Subscription(Subscription&& other) noexcept;
    Subscription& operator=(Subscription&& other) noexcept;
    ~Subscription();

   private:
    friend class ChangeSignal;
    Subscription(ChangeSignal* signal, uint64_t id) : signal_(signal), id_(id) {}

    ChangeSignal* signal_ = nullptr;
    uint64_t id_ = 0;
  };

  // `on_change` runs on the thread that notifies, under a mutex of the signal: it must not block,
  // nor subscribe or end a subscription of the same signal.
  [[nodiscard]] Subscription Subscribe(std::function<void()> on_change) ABSL_LOCKS_EXCLUDED(mu_);

  void Notify() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Unsubscribe(uint64_t id) ABSL_LOCKS_EXCLUDED(mu_);

  absl::Mutex mu_;
  uint64_t last_id_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<uint64_t, std::function<void()>> subscribers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_CHANGE_SIGNAL_H_
