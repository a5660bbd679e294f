// Anonymous shared memory that peers open through the exporting process. It has no name anywhere,
// so nothing is left behind however a process ends.
#ifndef MUSTER_WORKER_DEVICE_CPU_SHM_SEGMENT_H_
#define MUSTER_WORKER_DEVICE_CPU_SHM_SEGMENT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/device/buffer.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster {

// Where a segment can be opened: a descriptor of a process, and the random number that stands in
// the first eight bytes of the right segment.
struct ShmHandle {
  int64_t pid = 0;
  int64_t fd = -1;
  uint64_t nonce = 0;
  uint64_t bytes = 0;

  std::string Encode() const;
  // INVALID_ARGUMENT.
  static absl::StatusOr<ShmHandle> Decode(absl::string_view text);
};

// Exported memory of this process, an allocation of its own: zeroed but for the nonce, committed,
// mode 0600, its size fixed for good. Move-only.
class ShmSegment {
 public:
  // Claims the bytes of `device` and charges them to `ledger` under `tag`; both outlive the
  // segment. RESOURCE_EXHAUSTED.
  static absl::StatusOr<ShmSegment> Create(uint64_t bytes, absl::string_view tag, CpuDevice& device,
                                           Ledger& ledger);
  ShmSegment(ShmSegment&& other) noexcept;
  ShmSegment& operator=(ShmSegment&& other) noexcept;
  ~ShmSegment();

  std::byte* data() const { return memory_.as<std::byte>(); }
  uint64_t bytes() const { return memory_.size(); }
  ShmHandle handle() const;

  // Nobody can open the segment any more; those who have keep it.
  void StopExporting();

 private:
  ShmSegment() = default;

  Buffer memory_;
  int fd_ = -1;
  uint64_t nonce_ = 0;
};

// A peer's segment mapped here. It stays readable when the peer is gone. Move-only.
class ShmMapping {
 public:
  // UNAVAILABLE when the segment cannot be opened or is not the one that `handle` means.
  static absl::StatusOr<ShmMapping> Open(const ShmHandle& handle);
  ShmMapping(ShmMapping&& other) noexcept;
  ShmMapping& operator=(ShmMapping&& other) noexcept;
  ~ShmMapping();

  std::byte* data() const { return data_; }

 private:
  ShmMapping() = default;

  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CPU_SHM_SEGMENT_H_
