#include "worker/engine/cpu_engine_backend.h"

#include "worker/model/cpu/cpu_device_speed.h"
#include "worker/model/cpu/cpu_ops.h"

namespace muster {

CpuEngineBackend::CpuEngineBackend(const CpuDeviceOptions& device,
                                   const ShmBackend::Options& collectives)
    : device_(device), collectives_(device_, collectives), rings_(device_) {}

std::unique_ptr<Ops> CpuEngineBackend::MakeOps(Ledger& ledger) {
  return std::make_unique<CpuOps>(device_, ledger);
}

absl::StatusOr<DeviceSpeed> CpuEngineBackend::Measure(DType dtype) {
  return MeasureCpu(device_, dtype);
}

}  // namespace muster
