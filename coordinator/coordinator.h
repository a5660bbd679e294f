// All of the coordinator but its RPCs, wired together.
#ifndef MUSTER_COORDINATOR_COORDINATOR_H_
#define MUSTER_COORDINATOR_COORDINATOR_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "coordinator/events.h"
#include "coordinator/fleet.h"
#include "coordinator/membership.h"
#include "coordinator/reconfiguration.h"
#include "coordinator/rendezvous.h"
#include "coordinator/worker_client.h"

namespace muster {

// Thread-safe. Locks are taken in the order Membership (announcements), Reconfiguration, then any
// of the others.
class Coordinator {
 public:
  struct Options {
    Membership::Options membership;
    Reconfiguration::Options reconfiguration;
    size_t events = 4096;  // how many are kept
  };
  // `clock` and `client` outlive this; no callback of `client` may come after this is destroyed.
  Coordinator(const Options& options, const Clock& clock, WorkerClient& client);

  // Does what is due by the clock; call it every 50 ms or so.
  void Tick();

  // Ends all leases and waits with UNAVAILABLE, and refuses new ones.
  void Close();

  Membership& membership() { return membership_; }
  RendezvousBoard& rendezvous() { return rendezvous_; }
  Fleet& fleet() { return fleet_; }
  // When Tick was called last; when this was made, before that. Any thread.
  absl::Time last_tick() const { return absl::FromUnixNanos(last_tick_ns_.load()); }
  bool closed() const { return closed_.load(); }
  Term term() const { return reconfiguration_.term(); }

 private:
  const Clock& clock_;
  std::atomic<int64_t> last_tick_ns_;
  std::atomic<bool> closed_{false};
  Membership membership_;
  EventLog events_;
  RendezvousBoard rendezvous_;
  Reconfiguration reconfiguration_;
  Fleet fleet_;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_COORDINATOR_H_
