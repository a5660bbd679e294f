#ifndef MUSTER_COORDINATOR_FLEET_COUNTERS_H_
#define MUSTER_COORDINATOR_FLEET_COUNTERS_H_

#include <array>
#include <cstddef>

#include "base/metrics/counters.h"
#include "base/takeover.h"

namespace muster {

// What has happened to the fleet since this coordinator started, for whoever scrapes.
struct FleetCounters {
  static constexpr size_t kEventKinds = 32;  // above every EventKind

  std::array<Counter, kEventKinds> events;  // by kind

  // Of resizes, by how they ended.
  Counter resizes_done;
  Counter resizes_rolled_back;
  Counter resizes_failed;  // the new epoch was lost before the former was given back
  DurationHistogram resize_pause;
  Counter kv_bytes_moved;

  void NoteResized(const Takeover& takeover) {
    resizes_done.Add();
    resize_pause.Observe(takeover.pause);
    kv_bytes_moved.Add(takeover.kv_bytes_moved);
  }
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_FLEET_COUNTERS_H_
