#include "worker/collective/nccl/nccl_backend.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/collective/nccl/nccl_endpoint.h"

namespace muster {
namespace {

// A longer message goes in slices: by then an operation's beginning does not count any more.
constexpr uint64_t kMostMessageBytes = uint64_t{8} << 20;
constexpr uint64_t kGranule = 256;

NcclPeers::Options OptionsOf(const WorkspacePlan& plan, const NcclBackend::Options& options) {
  const uint64_t message = std::min(plan.message_bytes, kMostMessageBytes);
  const uint64_t share = message / plan.ranks.size() + kGranule;
  const uint64_t box = std::max(plan.slab_bytes, share) + kGranule - 1;
  return {.slab_bytes = plan.slab_bytes,
          .box_bytes = box / kGranule * kGranule,
          .wait_timeout = options.wait_timeout,
          .log = options.log};
}

}  // namespace

absl::StatusOr<std::unique_ptr<CollectiveEndpoint>> NcclBackend::Allocate(const Group& group,
                                                                          const WorkspacePlan& plan,
                                                                          Ledger& ledger) {
  if (group.size() > kMaxPeers || group.spec().ranks != plan.ranks) {
    return absl::InvalidArgumentError(absl::StrCat("no NCCL collectives for ", group.DebugString(),
                                                   ": a group has at most ", kMaxPeers,
                                                   " ranks, and those of its plan"));
  }
  const NcclPeers::Options options = OptionsOf(plan, options_);
  if (group.size() == 1) {
    return std::make_unique<NcclEndpoint>(group, nullptr, device_, NcclMemory::Lonely(), options);
  }
  MUSTER_ASSIGN_OR_RETURN(const NcclLibrary* nccl, NcclLibrary::Shared(options_.settings));
  MUSTER_ASSIGN_OR_RETURN(
      NcclMemory memory,
      NcclMemory::Create(NcclPeers::ScratchBytes(group.size(), options.box_bytes), plan.tag,
                         device_, host_, ledger));
  return std::make_unique<NcclEndpoint>(group, nccl, device_, std::move(memory), options);
}

}  // namespace muster
