#ifndef MUSTER_WORKER_COLLECTIVE_IPC_IPC_BACKEND_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_IPC_BACKEND_H_

#include <memory>
#include <optional>

#include "absl/time/time.h"
#include "base/logging.h"
#include "worker/collective/collective_backend.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster {

// Collectives of ranks of one host, each on a GPU that the others can reach; several may share one.
// Groups of 1 to 16 ranks, else INVALID_ARGUMENT; a group of one needs no memory. The grid of an
// operation is the device's multiprocessor budget, and the least of the group: it is resident
// together with those of the peers. Both devices outlive the backend and its endpoints; `device`
// made the streams that they enqueue on, `host` holds what the hosts share.
class IpcBackend final : public CollectiveBackend {
 public:
  struct Options {
    absl::Duration wait_timeout = absl::Seconds(10);  // of one collective
    Logger log;                                       // where failed collectives go
  };

  IpcBackend(CudaDevice& device, CpuDevice& host, const Options& options)
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

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_IPC_BACKEND_H_
