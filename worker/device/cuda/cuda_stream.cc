#include "worker/device/cuda/cuda_stream.h"

#include <cuda_runtime_api.h>

#include <chrono>
#include <utility>

#include "absl/time/time.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"

namespace muster {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(1);

bool SameOwner(const std::weak_ptr<CudaFault>& a, const std::weak_ptr<CudaFault>& b) {
  return !a.owner_before(b) && !b.owner_before(a);
}

void Add(CudaFaults& faults, const std::weak_ptr<CudaFault>& fault) {
  for (const std::weak_ptr<CudaFault>& known : faults) {
    if (SameOwner(known, fault)) return;
  }
  faults.push_back(fault);
}

// Asks all, and returns the first error.
absl::Status Check(const CudaFaults& faults) {
  absl::Status first;
  for (const std::weak_ptr<CudaFault>& watched : faults) {
    if (const std::shared_ptr<CudaFault> fault = watched.lock()) first.Update(fault->Check());
  }
  return first;
}

std::vector<std::shared_ptr<CudaFault>> PolledOf(const CudaFaults& faults) {
  std::vector<std::shared_ptr<CudaFault>> polled;
  for (const std::weak_ptr<CudaFault>& watched : faults) {
    std::shared_ptr<CudaFault> fault = watched.lock();
    if (fault != nullptr && fault->polled()) polled.push_back(std::move(fault));
  }
  return polled;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaDeviceStream>> CudaDeviceStream::Create(int gpu) {
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(gpu), "choosing the GPU"));
  cudaStream_t stream = nullptr;
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream"));
  return std::unique_ptr<CudaDeviceStream>(new CudaDeviceStream(gpu, stream));
}

CudaDeviceStream::~CudaDeviceStream() {
  cudaSetDevice(gpu_);
  cudaStreamDestroy(stream_);
}

void CudaDeviceStream::Watch(const std::shared_ptr<CudaFault>& fault) {
  Add(recording() ? *recorded_ : watched_, fault);
}

void CudaDeviceStream::Watch(const CudaFaults& faults) {
  for (const std::weak_ptr<CudaFault>& fault : faults) {
    Add(recording() ? *recorded_ : watched_, fault);
  }
}

absl::Status CudaDeviceStream::Synchronize() {
  absl::Status status = CudaStatus(cudaSetDevice(gpu_), "choosing the GPU");
  status.Update(Await());
  status.Update(Check(watched_));
  watched_.clear();
  return status;
}

absl::Status CudaDeviceStream::Await() const {
  const std::vector<std::shared_ptr<CudaFault>> polled = PolledOf(watched_);
  if (polled.empty()) return CudaStatus(cudaStreamSynchronize(stream_), "work on the GPU");
  const auto start = std::chrono::steady_clock::now();
  absl::Duration next = kPollInterval;
  cudaError_t state;
  while ((state = cudaStreamQuery(stream_)) == cudaErrorNotReady) {
    const absl::Duration waited = absl::FromChrono(std::chrono::steady_clock::now() - start);
    if (waited < next) continue;
    for (const std::shared_ptr<CudaFault>& fault : polled) fault->Poll(waited);
    next = waited + kPollInterval;
  }
  return CudaStatus(state, "work on the GPU");
}

}  // namespace muster
