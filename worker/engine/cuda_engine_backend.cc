#include "worker/engine/cuda_engine_backend.h"

#include <utility>

#include "absl/memory/memory.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "worker/collective/nccl/cuda_collectives.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cuda/cuda_block_copier.h"
#include "worker/device/cuda/cuda_device.h"
#include "worker/device/cuda/cuda_driver.h"
#include "worker/device/cuda/mps.h"
#include "worker/engine/shm_step_ring.h"
#include "worker/model/cuda/cuda_device_speed.h"
#include "worker/model/cuda/cuda_ops.h"

namespace muster {
namespace {

// A GPU, and memory of its host for what ranks tell each other there.
class CudaEngineBackend final : public EngineBackend {
 public:
  static absl::StatusOr<std::unique_ptr<EngineBackend>> Create(const CudaBackendOptions& options) {
    const double bytes = static_cast<double>(options.gpu.total_bytes) * options.memory_fraction;
    MUSTER_ASSIGN_OR_RETURN(
        std::unique_ptr<CudaDevice> device,
        CudaDevice::Create({.ordinal = options.gpu.ordinal,
                            .memory_limit = static_cast<uint64_t>(bytes) /
                                            static_cast<uint64_t>(options.ranks_on_gpu),
                            .ranks_on_gpu = options.ranks_on_gpu}));
    MUSTER_ASSIGN_OR_RETURN(std::unique_ptr<CudaBlockCopier> copier,
                            CudaBlockCopier::Create(*device));
    return absl::WrapUnique(new CudaEngineBackend(options, std::move(device), std::move(copier)));
  }

  Device& device() override { return *device_; }
  Device& host() override { return host_; }
  BlockCopier& copier() override { return *copier_; }
  CollectiveBackend& collectives() override { return collectives_; }
  StepRingBackend& rings() override { return rings_; }
  std::unique_ptr<Ops> MakeOps(Ledger& ledger) override {
    return std::make_unique<CudaOps>(*device_, ledger);
  }
  absl::Status CheckDevice() override { return device_->Check(); }
  absl::StatusOr<DeviceSpeed> Measure(DType dtype) override { return MeasureCuda(*device_, dtype); }

 private:
  CudaEngineBackend(const CudaBackendOptions& options, std::unique_ptr<CudaDevice> device,
                    std::unique_ptr<CudaBlockCopier> copier)
      : device_(std::move(device)),
        copier_(std::move(copier)),
        collectives_(*device_, host_,
                     {.wait_timeout = options.wait_timeout,
                      .nccl = {.oversubscribed = options.ranks_on_gpu > 1}}),
        rings_(host_) {}

  CpuDevice host_{CpuDeviceOptions{}};
  const std::unique_ptr<CudaDevice> device_;
  const std::unique_ptr<CudaBlockCopier> copier_;
  CudaCollectives collectives_;
  ShmStepRingBackend rings_;
};

void WarnOfSharing(const CudaBackendOptions& options, bool mps) {
  const std::string warning = SharingWarning(
      {.multiprocessors = options.gpu.multiprocessors, .ranks = options.ranks_on_gpu, .mps = mps},
      MpsPipeDirectory());
  if (!warning.empty()) Logger().Warning(warning);
}

}  // namespace

absl::StatusOr<std::vector<CudaGpu>> ListGpus() { return ListCudaGpus(); }

absl::StatusOr<std::unique_ptr<EngineBackend>> MakeCudaEngineBackend(
    const CudaBackendOptions& options) {
  MUSTER_ASSIGN_OR_RETURN(std::unique_ptr<EngineBackend> backend,
                          CudaEngineBackend::Create(options));
  WarnOfSharing(options, static_cast<CudaDevice&>(backend->device()).mps());
  return backend;
}

}  // namespace muster
