#include "worker/collective/ipc/ipc_layout.h"

#include <algorithm>

namespace muster {
namespace {

// Of both Lamport boxes together.
constexpr uint64_t kMostBoxBytes = uint64_t{16} << 20;
constexpr uint64_t kMostSliceBytes = uint64_t{32} << 20;
constexpr uint64_t kGranule = 256;

int64_t RoundUp(uint64_t bytes) {
  return static_cast<int64_t>((bytes + kGranule - 1) / kGranule * kGranule);
}

}  // namespace

PeerLayout IpcLayoutOf(const WorkspacePlan& plan) {
  const uint64_t world = std::max<uint64_t>(plan.ranks.size(), 1);
  const uint64_t message = std::max(plan.message_bytes, plan.slab_bytes);
  const uint64_t most_slot = std::max(kMostBoxBytes / 2 / world, plan.slab_bytes);
  return {.world = static_cast<int32_t>(world),
          .slot_bytes = RoundUp(std::min(message, most_slot)),
          .slice_bytes = RoundUp(std::min(message, std::max(kMostSliceBytes, plan.slab_bytes)))};
}

}  // namespace muster
