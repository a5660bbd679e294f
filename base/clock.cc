#include "base/clock.h"

#include <chrono>

#include "absl/time/clock.h"

namespace muster {
namespace {

// The time of day when it was made, and what has passed since: it goes on evenly when somebody sets
// the machine's clock, so that no wait becomes longer and no lease ends by that.
class RealClock : public Clock {
 public:
  absl::Time Now() const override {
    return begun_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_begun_);
  }

 private:
  const absl::Time begun_ = absl::Now();
  const std::chrono::steady_clock::time_point steady_begun_ = std::chrono::steady_clock::now();
};

}  // namespace

const Clock& Clock::Real() {
  static const RealClock* const clock = new RealClock;
  return *clock;
}

}  // namespace muster
