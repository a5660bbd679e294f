// The one door to CUDA: a build without it has another file behind this header, which says so.
#ifndef MUSTER_WORKER_ENGINE_CUDA_ENGINE_BACKEND_H_
#define MUSTER_WORKER_ENGINE_CUDA_ENGINE_BACKEND_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/device/cuda/device_choice.h"
#include "worker/engine/engine_backend.h"

namespace muster {

struct CudaBackendOptions {
  CudaGpu gpu;
  double memory_fraction = 0.9;  // of the GPU's memory, for all ranks on it together
  int ranks_on_gpu = 1;          // that share its multiprocessors and its memory
  absl::Duration wait_timeout = absl::Seconds(10);  // of one collective
};

// The GPUs of this process. FAILED_PRECONDITION (this build has no CUDA), UNAVAILABLE (no driver,
// no GPU, or a driver older than this build needs).
absl::StatusOr<std::vector<CudaGpu>> ListGpus();

// One rank's share of a GPU. UNAVAILABLE: the GPU, or a library of CUDA, cannot be used.
absl::StatusOr<std::unique_ptr<EngineBackend>> MakeCudaEngineBackend(
    const CudaBackendOptions& options);

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_CUDA_ENGINE_BACKEND_H_
