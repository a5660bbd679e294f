#include "tests/conformance/cuda_rank.h"

#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "worker/collective/ipc/ipc_backend.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster::testing {
namespace {

class CudaRank final : public RankBackend {
 public:
  CudaRank(std::unique_ptr<CudaDevice> device, const RankOptions& options)
      : device_(std::move(device)),
        host_({.ordinal = options.ordinal}),
        collectives_(*device_, host_, {.wait_timeout = options.wait_timeout}) {}

  Device& device() override { return *device_; }
  CollectiveBackend& collectives() override { return collectives_; }

 private:
  const std::unique_ptr<CudaDevice> device_;
  CpuDevice host_;
  IpcBackend collectives_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankBackend>> MakeCudaRank(const RankOptions& options) {
  MUSTER_ASSIGN_OR_RETURN(const std::vector<CudaGpu> gpus, ListCudaGpus());
  const int count = static_cast<int>(gpus.size());
  MUSTER_ASSIGN_OR_RETURN(
      std::unique_ptr<CudaDevice> device,
      CudaDevice::Create({.ordinal = options.ordinal,
                          .oversubscribe = true,
                          .memory_limit = options.memory_limit,
                          .ranks_on_gpu = (options.world + count - 1) / count}));
  return std::make_unique<CudaRank>(std::move(device), options);
}

}  // namespace muster::testing
