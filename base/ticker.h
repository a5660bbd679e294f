#ifndef MUSTER_BASE_TICKER_H_
#define MUSTER_BASE_TICKER_H_

#include <functional>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace muster {

// Calls a function again and again on a thread of its own.
class Ticker {
 public:
  // Starts at once; `period` passes between the end of one call and the next.
  Ticker(absl::Duration period, std::function<void()> tick)
      : thread_([this, period, tick = std::move(tick)] {
          while (!stop_.WaitForNotificationWithTimeout(period)) tick();
        }) {}
  // Waits for a call that is under way.
  ~Ticker() {
    stop_.Notify();
    thread_.join();
  }
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

 private:
  absl::Notification stop_;
  std::thread thread_;
};

}  // namespace muster

#endif  // MUSTER_BASE_TICKER_H_
