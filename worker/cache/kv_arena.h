// The memory of one rank's KV blocks, which other ranks of the host can copy from.
#ifndef MUSTER_WORKER_CACHE_KV_ARENA_H_
#define MUSTER_WORKER_CACHE_KV_ARENA_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "kernels/kv_descriptor.h"
#include "worker/device/device.h"

namespace muster {

struct KvArenaHeader;

// Blocks of one layout, and a seal for each: what its bytes were when they were last declared fit
// to be copied. Shared by the epochs of a worker that keep it; it outlives whichever made it. The
// blocks are the device thread's; Seal is called where nobody writes the block.
class KvArena {
 public:
  // `device` outlives it. INVALID_ARGUMENT (no blocks, or more than there are numbers for),
  // RESOURCE_EXHAUSTED names wanted and free bytes.
  static absl::StatusOr<std::shared_ptr<KvArena>> Create(const KvLayout& layout, int64_t blocks,
                                                         Device& device);

  std::byte* data() const { return first_; }
  std::byte* block(int64_t index) const { return first_ + index * block_bytes_; }
  int64_t blocks() const { return blocks_; }
  int64_t block_bytes() const { return block_bytes_; }
  const KvLayout& layout() const { return layout_; }
  uint64_t bytes() const { return memory_.size(); }
  // For KvArenaPeer, in any process of this host. Neither spaces nor newlines.
  const std::string& handle() const { return memory_.handle(); }

  // Publishes the digest of a block's bytes under `stamp`, which no other seal of it has had.
  void Seal(int32_t block, uint64_t stamp);
  // From now on seals say something else than the truth. For tests.
  void FalsifySeals() { falsified_ = 1; }

 private:
  KvArena() = default;

  KvLayout layout_{};
  int64_t blocks_ = 0;
  int64_t block_bytes_ = 0;
  Ledger ledger_;  // of the memory, which no epoch's ledger could outlive
  ExportedBuffer memory_;
  KvArenaHeader* header_ = nullptr;
  std::byte* first_ = nullptr;
  uint64_t falsified_ = 0;  // bits of a digest
};

// An arena of another rank, mapped here for reading.
class KvArenaPeer {
 public:
  // UNAVAILABLE when it cannot be opened, FAILED_PRECONDITION when its blocks have another layout.
  static absl::StatusOr<std::unique_ptr<KvArenaPeer>> Open(absl::string_view handle,
                                                           const KvLayout& layout, Device& device);

  const std::byte* block(int64_t index) const { return first_ + index * block_bytes_; }
  int64_t blocks() const { return blocks_; }
  int64_t block_bytes() const { return block_bytes_; }

 private:
  friend absl::Status PullBlock(const KvArenaPeer&, int32_t, uint64_t, KvArena&, int32_t,
                                absl::Time, const std::atomic<bool>*);
  KvArenaPeer() = default;

  PeerMemory memory_;
  const KvArenaHeader* header_ = nullptr;
  int64_t blocks_ = 0;
  int64_t block_bytes_ = 0;
  const std::byte* first_ = nullptr;
};

// Copies a block once its source has sealed it with `stamp`, and checks the copy against the seal.
// OUT_OF_RANGE (a block that an arena does not have), FAILED_PRECONDITION (other block sizes),
// DEADLINE_EXCEEDED (no such seal), ABORTED (`stopped`, which may be null), DATA_LOSS (reason
// KV_CORRUPT: the copy has another digest).
absl::Status PullBlock(const KvArenaPeer& from, int32_t from_block, uint64_t stamp, KvArena& to,
                       int32_t to_block, absl::Time deadline, const std::atomic<bool>* stopped);

// Bytes per second of a plain copy between buffers that no cache holds. Measured by the first call,
// which takes 128 MiB for some tens of milliseconds: before KV gets what is free.
double CopyBandwidth();

}  // namespace muster

#endif  // MUSTER_WORKER_CACHE_KV_ARENA_H_
