// Collectives that keep a tally of what they enqueue.
#ifndef MUSTER_WORKER_COLLECTIVE_TALLIED_COLLECTIVES_H_
#define MUSTER_WORKER_COLLECTIVE_TALLIED_COLLECTIVES_H_

#include <memory>

#include "worker/collective/collective_tally.h"
#include "worker/collective/communicator.h"
#include "worker/collective/workspace.h"

namespace muster {

// The same, counted; as it is where there is only one rank. `tally` outlives it.
std::unique_ptr<Workspace> Tallied(std::unique_ptr<Workspace> workspace, CollectiveTally& tally);
std::unique_ptr<Communicator> Tallied(std::unique_ptr<Communicator> communicator,
                                      CollectiveTally& tally);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_TALLIED_COLLECTIVES_H_
