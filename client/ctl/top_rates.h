#ifndef MUSTER_CLIENT_CTL_TOP_RATES_H_
#define MUSTER_CLIENT_CTL_TOP_RATES_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "absl/time/time.h"
#include "proto/muster/v1/fleet.pb.h"

namespace muster::ctl {

// How fast workers are, from how their counters grow: over the last few seconds, and by the times
// of the heartbeats that brought the counters, not those of the calls that asked for them.
class TopRates {
 public:
  struct Rate {
    double steps_per_second = 0;
    double tokens_per_second = 0;
  };

  // `workers` as they were told at `now`, which only grows.
  void Add(absl::Time now, const v1::ListWorkersResponse& workers);
  // Nothing until two heartbeats of one epoch are known.
  std::optional<Rate> Of(const v1::WorkerStatus& worker) const;

 private:
  // A worker's counters begin anew with its process, and with an epoch.
  using Key = std::tuple<std::string, uint64_t, uint64_t>;
  struct Sample {
    absl::Time heartbeat;
    uint64_t steps = 0;
    uint64_t tokens = 0;
  };

  static Key KeyOf(const v1::WorkerStatus& worker) {
    return {worker.worker_id(), worker.incarnation(), worker.epoch()};
  }

  std::map<Key, std::deque<Sample>> samples_;
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_TOP_RATES_H_
