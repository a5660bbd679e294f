#include "worker/collective/nccl/cuda_collectives.h"

#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "worker/collective/nccl/chosen_endpoint.h"
#include "worker/device/cuda/cuda_driver.h"

namespace muster {

CudaCollectives::CudaCollectives(CudaDevice& device, CpuDevice& host, const Options& options)
    : device_(device),
      options_(options),
      ipc_(device, host, {.wait_timeout = options.wait_timeout, .log = options.log}),
      nccl_(device, host,
            {.wait_timeout = options.wait_timeout, .settings = options.nccl, .log = options.log}) {}

absl::StatusOr<std::unique_ptr<CollectiveEndpoint>> CudaCollectives::Allocate(
    const Group& group, const WorkspacePlan& plan, Ledger& ledger) {
  if (group.size() == 1) return ipc_.Allocate(group, plan, ledger);
  if (options_.force_nccl) return nccl_.Allocate(group, plan, ledger);
  MUSTER_ASSIGN_OR_RETURN(const std::vector<CudaGpu> gpus, ListCudaGpus());
  MUSTER_ASSIGN_OR_RETURN(const GpuReach reach, ReachOf(device_.gpu(), gpus));
  MUSTER_ASSIGN_OR_RETURN(const bool all_reach, AllReachEachOther(gpus));
  ChosenEndpoint::Candidates candidates;
  MUSTER_ASSIGN_OR_RETURN(candidates.ipc, ipc_.Allocate(group, plan, ledger));
  if (options_.across_hosts || !all_reach) {
    MUSTER_ASSIGN_OR_RETURN(candidates.nccl, nccl_.Allocate(group, plan, ledger));
  }
  return std::make_unique<ChosenEndpoint>(group, reach, std::move(candidates), options_.log);
}

}  // namespace muster
