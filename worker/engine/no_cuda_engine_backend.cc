// Behind cuda_engine_backend.h where this build has no CUDA.
#include "worker/engine/cuda_engine_backend.h"

namespace muster {

absl::StatusOr<std::vector<CudaGpu>> ListGpus() { return NoCudaInThisBuild(); }

absl::StatusOr<std::unique_ptr<EngineBackend>> MakeCudaEngineBackend(const CudaBackendOptions&) {
  return NoCudaInThisBuild();
}

}  // namespace muster
