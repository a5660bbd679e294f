#ifndef MUSTER_WORKER_ENGINE_SHM_STEP_RING_H_
#define MUSTER_WORKER_ENGINE_SHM_STEP_RING_H_

#include <memory>

#include "worker/device/cpu/cpu_device.h"
#include "worker/engine/step_ring.h"

namespace muster {

// Rings between ranks that share a host's memory, be they processes or threads of one. `device`
// outlives it and its rings.
class ShmStepRingBackend final : public StepRingBackend {
 public:
  explicit ShmStepRingBackend(CpuDevice& device) : device_(device) {}

  absl::StatusOr<std::unique_ptr<StepRing>> Create(const Options& options, Ledger& ledger) override;
  absl::StatusOr<std::unique_ptr<StepRing>> Open(absl::string_view handle, int index) override;

 private:
  CpuDevice& device_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_SHM_STEP_RING_H_
