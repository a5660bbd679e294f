#include "worker/collective/shm/shm_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/collective/shm/shm_endpoint.h"
#include "worker/collective/shm/shm_layout.h"
#include "worker/collective/shm/shm_peers.h"
#include "worker/device/cpu/shm_segment.h"

namespace muster {

absl::StatusOr<std::unique_ptr<CollectiveEndpoint>> ShmBackend::Allocate(const Group& group,
                                                                         const WorkspacePlan& plan,
                                                                         Ledger& ledger) {
  if (group.size() > kMaxShmRanks || group.spec().ranks != plan.ranks) {
    return absl::InvalidArgumentError(absl::StrCat("no shared memory for ", group.DebugString(),
                                                   ": a group has at most ", kMaxShmRanks,
                                                   " ranks, and those of its plan"));
  }
  const uint64_t slab_bytes = (plan.slab_bytes + kShmPage - 1) / kShmPage * kShmPage;
  const ShmPeers::Options options{.slab_bytes = slab_bytes,
                                  .wait_timeout = options_.wait_timeout,
                                  .log = options_.log,
                                  .waited_ns = &waited_ns_};
  if (group.size() == 1) {
    MUSTER_ASSIGN_OR_RETURN(Buffer memory, device_.Allocate(kShmPage, plan.tag, ledger));
    return std::make_unique<ShmEndpoint>(group, std::move(memory), options);
  }
  MUSTER_ASSIGN_OR_RETURN(ShmSegment segment, ShmSegment::Create(ShmPeers::SegmentBytes(slab_bytes),
                                                                 plan.tag, device_, ledger));
  return std::make_unique<ShmEndpoint>(group, std::move(segment), options);
}

}  // namespace muster
