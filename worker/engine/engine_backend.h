// What a kind of device brings for an epoch: the one place where a backend is chosen.
#ifndef MUSTER_WORKER_ENGINE_ENGINE_BACKEND_H_
#define MUSTER_WORKER_ENGINE_ENGINE_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "worker/cache/kv_arena.h"
#include "worker/collective/collective_backend.h"
#include "worker/device/block_copier.h"
#include "worker/device/device.h"
#include "worker/device/device_speed.h"
#include "worker/engine/step_ring.h"
#include "worker/model/ops.h"

namespace muster {

// One per worker, shared by its epochs, which it outlives. Thread-safe.
class EngineBackend {
 public:
  virtual ~EngineBackend() = default;

  virtual Device& device() = 0;
  // Whose memory the host reads and writes, and exports to the other processes of this host.
  virtual Device& host() = 0;
  // Of device().
  virtual BlockCopier& copier() = 0;
  KvMeans kv_means() { return {.device = device(), .host = host(), .copier = copier()}; }
  virtual CollectiveBackend& collectives() = 0;
  virtual StepRingBackend& rings() = 0;
  // The operations of one rank of one epoch; `ledger` outlives them.
  virtual std::unique_ptr<Ops> MakeOps(Ledger& ledger) = 0;
  // OK while the device can compute. Otherwise no epoch of this process ever will again: an error
  // that CUDA keeps until the process ends, say. Any thread; does not wait for the device.
  virtual absl::Status CheckDevice() = 0;
  // What the device can do with weights of `dtype`, measured within a second; steps that run
  // meanwhile are slowed down, and slow it down. RESOURCE_EXHAUSTED: no memory for it.
  virtual absl::StatusOr<DeviceSpeed> Measure(DType dtype) = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_ENGINE_BACKEND_H_
