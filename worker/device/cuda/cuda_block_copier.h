#ifndef MUSTER_WORKER_DEVICE_CUDA_CUDA_BLOCK_COPIER_H_
#define MUSTER_WORKER_DEVICE_CUDA_CUDA_BLOCK_COPIER_H_

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/device/block_copier.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster {

// Computes on the GPU, on a stream of its own, one call at a time; the thread that calls spins. The
// bytes of a block are a multiple of 64 and begin at one of 16: INVALID_ARGUMENT.
class CudaBlockCopier final : public BlockCopier {
 public:
  // Errors of the device's allocations.
  static absl::StatusOr<std::unique_ptr<CudaBlockCopier>> Create(CudaDevice& device);

  absl::Status Digest(absl::Span<const std::byte* const> blocks, size_t block_bytes,
                      absl::Span<uint64_t> digests) override ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Copy(absl::Span<const std::byte* const> from, absl::Span<std::byte* const> to,
                    size_t block_bytes, absl::Span<uint64_t> digests) override
      ABSL_LOCKS_EXCLUDED(mu_);
  size_t batch_bytes() const override { return size_t{256} << 20; }
  double Bandwidth() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Batch {
    absl::Span<const std::byte* const> from;
    absl::Span<std::byte* const> to;  // empty: nothing is copied
    size_t block_bytes;
  };

  explicit CudaBlockCopier(CudaDevice& device) : device_(device) {}

  // `all` may have any number of blocks.
  absl::Status RunAll(const Batch& all, absl::Span<uint64_t> digests) ABSL_LOCKS_EXCLUDED(mu_);
  // Of as many blocks as one launch may have, or fewer.
  absl::Status Run(const Batch& batch, absl::Span<uint64_t> digests)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Enqueue(const Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<double> Measure() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  CudaDevice& device_;
  Ledger ledger_;  // of the buffers, which belong to no epoch

  absl::Mutex mu_;
  std::unique_ptr<Stream> stream_ ABSL_GUARDED_BY(mu_);
  // Addresses of the sources of a batch, then those of its targets; on the host and on the GPU.
  Buffer host_blocks_ ABSL_GUARDED_BY(mu_);
  Buffer blocks_ ABSL_GUARDED_BY(mu_);
  // uint64_t [blocks of a batch, kDigestLanes]
  Buffer host_lanes_ ABSL_GUARDED_BY(mu_);
  Buffer lanes_ ABSL_GUARDED_BY(mu_);
  double bandwidth_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CUDA_CUDA_BLOCK_COPIER_H_
