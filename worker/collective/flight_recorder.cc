#include "worker/collective/flight_recorder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace muster {

std::string FlightRecorder::DebugString(int limit) const {
  static constexpr const char* kStates[] = {"waiting", "done", "failed"};
  const uint64_t kept = std::min<uint64_t>(count_, std::min(limit, kCapacity));
  std::string text;
  for (uint64_t i = count_ - kept; i < count_; ++i) {
    const Entry& entry = entries_[i % kCapacity];
    absl::StrAppend(&text, i == count_ - kept ? "" : "\n", "#", entry.sequence, " ",
                    entry.stamp.DebugString(), " ", kStates[static_cast<int>(entry.state)]);
  }
  return text;
}

}  // namespace muster
