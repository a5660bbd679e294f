#ifndef MUSTER_WORKER_COLLECTIVE_SELF_TEST_H_
#define MUSTER_WORKER_COLLECTIVE_SELF_TEST_H_

#include <vector>

#include "absl/status/status.h"
#include "worker/collective/collective_backend.h"
#include "worker/collective/group.h"
#include "worker/collective/workspace_plan.h"
#include "worker/device/device.h"

namespace muster {

// Sizes that a workspace is tried with.
struct SelfTestShape {
  int hidden = 16;
  int tokens = 3;

  // As near to the real uses of `plan` as is quick.
  static SelfTestShape For(const WorkspacePlan& plan, const std::vector<CollectiveUse>& uses);
};

// Collective. On random data: the fused norm, in one shot and in two, has the bits of the unfused
// one, the same on all ranks; the CP combine agrees with plain arithmetic on what an all-gather
// brings. INTERNAL says what differs; errors as of Communicator.
absl::Status RunSelfTest(Device& device, Stream& stream, const Group& group,
                         CollectiveEndpoint& endpoint, const SelfTestShape& shape, Ledger& ledger);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SELF_TEST_H_
