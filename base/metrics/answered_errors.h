#ifndef MUSTER_BASE_METRICS_ANSWERED_ERRORS_H_
#define MUSTER_BASE_METRICS_ANSWERED_ERRORS_H_

#include <array>
#include <cstddef>

#include "base/metrics/counters.h"

namespace muster {

// Errors that this process has answered calls and requests with, by muster.v1.ErrorReason: counted
// where statuses become messages (base/wire_status.h), so that none is forgotten. Those without a
// reason, or of one that is not known here, are number 0.
class AnsweredErrors {
 public:
  static constexpr size_t kReasons = 64;

  // Of the process.
  static AnsweredErrors& Instance() {
    static AnsweredErrors errors;
    return errors;
  }

  void Add(int reason) { counts_[reason > 0 && reason < int{kReasons} ? reason : 0].Add(); }
  uint64_t count(int reason) const { return counts_[static_cast<size_t>(reason)].value(); }

 private:
  std::array<Counter, kReasons> counts_;
};

}  // namespace muster

#endif  // MUSTER_BASE_METRICS_ANSWERED_ERRORS_H_
