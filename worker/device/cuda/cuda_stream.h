#ifndef MUSTER_WORKER_DEVICE_CUDA_CUDA_STREAM_H_
#define MUSTER_WORKER_DEVICE_CUDA_CUDA_STREAM_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/device/stream.h"

struct CUstream_st;

namespace muster {

// How work on the device says that it failed, when CUDA itself sees no error: a collective whose
// peer did not come, say.
class CudaFault {
 public:
  virtual ~CudaFault() = default;
  // OK while nothing failed. Called after the work has run, by the stream's thread; never blocks.
  virtual absl::Status Check() = 0;

  // Whether the work may need help to end: Poll is then called about every millisecond while it
  // runs, by the stream's thread, with how long that has waited. It never blocks; where it finds a
  // failure it makes the work end, and Check tells of it.
  virtual bool polled() const { return false; }
  virtual void Poll(absl::Duration) {}
};

// Faults of some work, each once; they may be gone when they are asked.
using CudaFaults = std::vector<std::weak_ptr<CudaFault>>;

// A CUDA stream of its own, which no other one waits for (non-blocking).
class CudaDeviceStream final : public Stream {
 public:
  // On GPU `gpu`, CUDA's ordinal of it.
  static absl::StatusOr<std::unique_ptr<CudaDeviceStream>> Create(int gpu);
  ~CudaDeviceStream() override;

  // How launchers of this backend reach their stream; `stream` was made by a CudaDevice.
  static CudaDeviceStream& From(Stream& stream) { return static_cast<CudaDeviceStream&>(stream); }

  // A cudaStream_t.
  CUstream_st* get() const { return stream_; }
  int gpu() const { return gpu_; }

  // To be called with every piece of work that can fail so: the next Synchronize asks `fault`, once
  // however often it was given. What is recorded gives it to its graph, and every Launch to the
  // stream. Allocates nothing once as many faults were watched before.
  void Watch(const std::shared_ptr<CudaFault>& fault);
  void Watch(const CudaFaults& faults);

  // Spins. CUDA's error where there is one, else that of the first watched fault. A device error
  // (INTERNAL) ends all work of the process on its GPU; a fault is forgotten when it was asked.
  absl::Status Synchronize() override;

  // From here on Watch keeps faults in `faults`; null ends that. For captures.
  void Record(CudaFaults* faults) { recorded_ = faults; }
  bool recording() const { return recorded_ != nullptr; }

 private:
  CudaDeviceStream(int gpu, CUstream_st* stream) : gpu_(gpu), stream_(stream) {}

  // Returns when all work has run.
  absl::Status Await() const;

  const int gpu_;
  CUstream_st* const stream_;

  // Used by the stream's thread only.
  CudaFaults watched_;
  CudaFaults* recorded_ = nullptr;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CUDA_CUDA_STREAM_H_
