#ifndef MUSTER_WORKER_DEVICE_CUDA_CUDA_DEVICE_H_
#define MUSTER_WORKER_DEVICE_CUDA_CUDA_DEVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "base/ids.h"
#include "worker/device/cuda/cuda_driver.h"
#include "worker/device/cuda/cuda_stream.h"
#include "worker/device/cuda/device_choice.h"
#include "worker/device/device.h"

namespace muster {

struct CudaDeviceOptions {
  DeviceOrdinal ordinal;       // CUDA's
  bool oversubscribe = false;  // ordinals past the last GPU begin again with the first
  uint64_t memory_limit = 0;   // bytes this device hands out at most; 0: what the GPU has
  int ranks_on_gpu = 1;        // that share the GPU with this one, itself included
};

// A GPU. Its streams are CudaDeviceStreams, its graphs CudaGraphs. Every method makes the GPU
// current on the calling thread. None but Copy may be called by a thread that is capturing.
class CudaDevice final : public Device {
 public:
  // NOT_FOUND where the ordinal does not exist names what does; FAILED_PRECONDITION where kernels
  // do not run on it, as NoKernels; else as ListCudaGpus, and CUDA's errors. Makes the process's
  // context on the GPU, which stays until the process ends.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create(
      const CudaDeviceOptions& options, const CudaDriver& driver = CudaDriver::Real());
  ~CudaDevice() override;

  DeviceReport Report() const override;
  absl::StatusOr<Buffer> Allocate(size_t bytes, absl::string_view tag, Ledger& ledger) override;
  absl::StatusOr<Buffer> AllocateHost(size_t bytes, absl::string_view tag, Ledger& ledger) override;
  absl::StatusOr<ExportedBuffer> AllocateExported(size_t bytes, absl::string_view tag,
                                                  Ledger& ledger) override;
  absl::StatusOr<PeerMemory> OpenExported(absl::string_view handle) override;
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override;
  absl::StatusOr<std::unique_ptr<Graph>> Capture(Stream& stream,
                                                 absl::FunctionRef<absl::Status()> record) override;
  absl::Status Copy(Stream& stream, void* to, const void* from, size_t bytes) override;

  // The GPU that it is on; its ordinal is CUDA's.
  const CudaGpu& gpu() const { return gpu_; }
  // This process is a client of the Multi-Process Service.
  bool mps() const { return mps_; }
  // That share the GPU, this one included.
  int ranks_on_gpu() const { return options_.ranks_on_gpu; }
  // As MultiprocessorBudget of the GPU and `ranks_on_gpu`.
  int multiprocessor_budget() const;

  // OK, or the error that CUDA keeps from here on for everything that this process asks of it.
  absl::Status Check() const;

  // Makes the GPU current on this thread, for what calls CUDA itself.
  absl::Status MakeCurrent() const;

 private:
  CudaDevice(const CudaDeviceOptions& options, CudaGpu gpu)
      : options_(options), gpu_(std::move(gpu)) {}

  absl::Status Start();
  uint64_t FreeBytes() const;
  absl::Status NoRoom(uint64_t bytes, absl::string_view tag) const;
  // Counts bytes as handed out, within the limit.
  absl::Status Claim(uint64_t bytes, absl::string_view tag);
  void Release(uint64_t bytes) { handed_out_.fetch_sub(bytes); }

  const CudaDeviceOptions options_;
  const CudaGpu gpu_;
  bool mps_ = false;
  std::unique_ptr<CudaDeviceStream> setup_;  // clears memory; a stream of CUDA has no owner thread
  std::atomic<uint64_t> handed_out_{0};
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CUDA_CUDA_DEVICE_H_
