#ifndef MUSTER_WORKER_COLLECTIVE_FLIGHT_RECORDER_H_
#define MUSTER_WORKER_COLLECTIVE_FLIGHT_RECORDER_H_

#include <array>
#include <cstdint>
#include <string>

#include "worker/collective/collective_stamp.h"

namespace muster {

// The last collectives of one group, for whoever asks afterwards who was missing. Belongs to the
// thread that issues them; recording allocates nothing.
class FlightRecorder {
 public:
  static constexpr int kCapacity = 64;

  enum class State : uint8_t { kWaiting, kDone, kFailed };

  // A collective begins; `sequence` grows by one from call to call.
  void Begin(uint32_t sequence, const CollectiveStamp& stamp) {
    entries_[count_++ % kCapacity] = {sequence, State::kWaiting, stamp};
  }
  // The latest one ended.
  void End(State state) { entries_[(count_ - 1) % kCapacity].state = state; }

  // One line for each of the last `limit`, oldest first: "#120 all-reduce of ... done".
  std::string DebugString(int limit = kCapacity) const;

 private:
  struct Entry {
    uint32_t sequence = 0;
    State state = State::kWaiting;
    CollectiveStamp stamp;
  };

  std::array<Entry, kCapacity> entries_;
  uint64_t count_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_FLIGHT_RECORDER_H_
