#include "worker/collective/ipc/ipc_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/collective/ipc/ipc_endpoint.h"
#include "worker/collective/ipc/ipc_layout.h"

namespace muster {
absl::StatusOr<std::unique_ptr<CollectiveEndpoint>> IpcBackend::Allocate(const Group& group,
                                                                         const WorkspacePlan& plan,
                                                                         Ledger& ledger) {
  if (group.size() > kMaxPeers || group.spec().ranks != plan.ranks) {
    return absl::InvalidArgumentError(absl::StrCat("no workspace for ", group.DebugString(),
                                                   ": a group has at most ", kMaxPeers,
                                                   " ranks, and those of its plan"));
  }
  const IpcPeers::Options options{
      .layout = IpcLayoutOf(plan), .wait_timeout = options_.wait_timeout, .log = options_.log};
  IpcMemory memory = IpcMemory::Lonely();
  if (group.size() > 1) {
    MUSTER_ASSIGN_OR_RETURN(memory,
                            IpcMemory::Create(options.layout, plan.tag, device_, host_, ledger));
  }
  return std::make_unique<IpcEndpoint>(group, device_, std::move(memory), options, ledger);
}

}  // namespace muster
