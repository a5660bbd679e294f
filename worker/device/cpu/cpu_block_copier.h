#ifndef MUSTER_WORKER_DEVICE_CPU_CPU_BLOCK_COPIER_H_
#define MUSTER_WORKER_DEVICE_CPU_CPU_BLOCK_COPIER_H_

#include "worker/device/block_copier.h"

namespace muster {

// Runs on the thread that calls. Never fails.
class CpuBlockCopier final : public BlockCopier {
 public:
  absl::Status Digest(absl::Span<const std::byte* const> blocks, size_t block_bytes,
                      absl::Span<uint64_t> digests) override;
  absl::Status Copy(absl::Span<const std::byte* const> from, absl::Span<std::byte* const> to,
                    size_t block_bytes, absl::Span<uint64_t> digests) override;
  size_t batch_bytes() const override { return size_t{2} << 20; }
  double Bandwidth() override;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CPU_CPU_BLOCK_COPIER_H_
