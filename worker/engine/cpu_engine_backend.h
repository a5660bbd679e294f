#ifndef MUSTER_WORKER_ENGINE_CPU_ENGINE_BACKEND_H_
#define MUSTER_WORKER_ENGINE_CPU_ENGINE_BACKEND_H_

#include <memory>

#include "worker/collective/shm/shm_backend.h"
#include "worker/device/cpu/cpu_block_copier.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/engine/engine_backend.h"
#include "worker/engine/shm_step_ring.h"

namespace muster {

// One slot of this machine's processor, and shared memory between its ranks.
class CpuEngineBackend final : public EngineBackend {
 public:
  CpuEngineBackend(const CpuDeviceOptions& device, const ShmBackend::Options& collectives);

  Device& device() override { return device_; }
  Device& host() override { return device_; }
  BlockCopier& copier() override { return copier_; }
  CollectiveBackend& collectives() override { return collectives_; }
  StepRingBackend& rings() override { return rings_; }
  std::unique_ptr<Ops> MakeOps(Ledger& ledger) override;
  absl::Status CheckDevice() override { return absl::OkStatus(); }
  absl::StatusOr<DeviceSpeed> Measure(DType dtype) override;

 private:
  CpuDevice device_;
  CpuBlockCopier copier_;
  ShmBackend collectives_;
  ShmStepRingBackend rings_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_CPU_ENGINE_BACKEND_H_
