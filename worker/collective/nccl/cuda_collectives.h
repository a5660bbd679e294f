#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_CUDA_COLLECTIVES_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_CUDA_COLLECTIVES_H_

#include <memory>
#include <optional>

#include "absl/time/time.h"
#include "base/logging.h"
#include "worker/collective/collective_backend.h"
#include "worker/collective/ipc/ipc_backend.h"
#include "worker/collective/nccl/nccl_backend.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster {

// Collectives of GPUs: over CUDA IPC where all GPUs of a group reach each other, else, for the
// whole group, over NCCL, which a line of the log says. All ranks of a group decide alike, when
// they open each other's ends. Where this process sees that it may come to NCCL, what that needs is
// allocated beside the rest until then; elsewhere the library is not even looked for. Both devices
// outlive the backend and its endpoints.
class CudaCollectives final : public CollectiveBackend {
 public:
  struct Options {
    absl::Duration wait_timeout = absl::Seconds(10);  // of one collective
    bool force_nccl = false;                          // for comparisons; the same on all ranks
    bool across_hosts = false;  // ranks may be on several hosts; the same on all ranks
    NcclSettings nccl;
    Logger log;
  };

  CudaCollectives(CudaDevice& device, CpuDevice& host, const Options& options);

  // As IpcBackend and NcclBackend.
  absl::StatusOr<std::unique_ptr<CollectiveEndpoint>> Allocate(const Group& group,
                                                               const WorkspacePlan& plan,
                                                               Ledger& ledger) override;
  std::optional<absl::Duration> waited() const override { return std::nullopt; }

 private:
  CudaDevice& device_;
  const Options options_;
  IpcBackend ipc_;
  NcclBackend nccl_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_CUDA_COLLECTIVES_H_
