#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_BACKEND_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_BACKEND_H_

#include <memory>
#include <optional>

#include "absl/time/time.h"
#include "base/logging.h"
#include "worker/collective/collective_backend.h"
#include "worker/collective/nccl/nccl_library.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster {

// Collectives of ranks on any GPUs of any hosts, over NCCL. Groups of 1 to 16 ranks, else
// INVALID_ARGUMENT; a group of one needs neither memory nor library, any other fails as
// NcclLibrary::Load where there is none. Both devices outlive the backend and its endpoints;
// `device` made the streams that they enqueue on, `host` holds what the ranks of one host share.
class NcclBackend final : public CollectiveBackend {
 public:
  struct Options {
    absl::Duration wait_timeout = absl::Seconds(10);  // of one collective
    NcclSettings settings;
    Logger log;  // where failed collectives go
  };

  NcclBackend(CudaDevice& device, CpuDevice& host, const Options& options)
      : device_(device), host_(host), options_(options) {}

  absl::StatusOr<std::unique_ptr<CollectiveEndpoint>> Allocate(const Group& group,
                                                               const WorkspacePlan& plan,
                                                               Ledger& ledger) override;
  std::optional<absl::Duration> waited() const override { return std::nullopt; }

 private:
  CudaDevice& device_;
  CpuDevice& host_;
  const Options options_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_BACKEND_H_
