// Many blocks of a device's memory at once: what their bytes are, and copies that are checked.
#ifndef MUSTER_WORKER_DEVICE_BLOCK_COPIER_H_
#define MUSTER_WORKER_DEVICE_BLOCK_COPIER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace muster {

// Of one device, which outlives it. Each call is over when it returns, and ordered with no stream:
// what wrote the blocks has ended, and nothing writes them meanwhile. Thread-safe. Errors are those
// of the device.
class BlockCopier {
 public:
  virtual ~BlockCopier() = default;

  // The BlockDigest of each block's bytes.
  virtual absl::Status Digest(absl::Span<const std::byte* const> blocks, size_t block_bytes,
                              absl::Span<uint64_t> digests) = 0;
  // Copies each block of `from`, of this device or opened by it, to that of `to`, of this device:
  // as many, none twice, none overlapping. The digests are of the bytes that arrived.
  virtual absl::Status Copy(absl::Span<const std::byte* const> from,
                            absl::Span<std::byte* const> to, size_t block_bytes,
                            absl::Span<uint64_t> digests) = 0;

  // How many bytes to give a call so that it is worth its costs and over within a millisecond.
  virtual size_t batch_bytes() const = 0;
  // Bytes per second of a plain copy between buffers that no cache holds; 0 where there is no room
  // to find out. Measured by the first call, which takes memory for some tens of milliseconds:
  // before KV gets what is free.
  virtual double Bandwidth() = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_BLOCK_COPIER_H_
