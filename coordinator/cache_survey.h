#ifndef MUSTER_COORDINATOR_CACHE_SURVEY_H_
#define MUSTER_COORDINATOR_CACHE_SURVEY_H_

#include <functional>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "base/takeover.h"
#include "coordinator/formation.h"

namespace muster {

// What the sequences of each replica hold.
using CacheSummaries = std::map<ReplicaIndex, CacheSummary>;

// Asks the leaders of these topologies, all at once. `done` runs under the owner's lock, from
// another thread, with what all of them said, or with the first error, which names its leader; at
// once when there are none.
void SurveyCaches(const std::vector<Topology>& topologies, const Formation::Ports& ports,
                  std::function<void(absl::StatusOr<CacheSummaries>)> done);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_CACHE_SURVEY_H_
