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
#include "absl/types/span.h"
#include "kernels/kv_descriptor.h"
#include "worker/device/block_copier.h"
#include "worker/device/device.h"

namespace muster {

struct KvArenaHeader;

// What arenas are made of and with. All of it outlives them.
struct KvMeans {
  Device& device;       // of the blocks
  Device& host;         // of the seals: the host reads and writes its memory
  BlockCopier& copier;  // of `device`
};

// A block whose bytes are declared fit to be copied, under a stamp that no other seal of it has
// had.
struct BlockSeal {
  int32_t block = 0;
  uint64_t stamp = 0;
};

// Blocks of one layout in memory of the device, and in memory of the host a seal for each: what its
// bytes were when it was last sealed. Shared by the epochs of a worker that keep it; it outlives
// whichever made it. The blocks are the device thread's; Seal is called where nobody writes them.
class KvArena {
 public:
  // INVALID_ARGUMENT (no blocks, or more than there are numbers for), RESOURCE_EXHAUSTED names
  // wanted and free bytes.
  static absl::StatusOr<std::shared_ptr<KvArena>> Create(const KvLayout& layout, int64_t blocks,
                                                         const KvMeans& means);

  // Of the device.
  std::byte* data() const { return memory_.as<std::byte>(); }
  std::byte* block(int64_t index) const { return data() + index * block_bytes_; }
  int64_t blocks() const { return blocks_; }
  int64_t block_bytes() const { return block_bytes_; }
  const KvLayout& layout() const { return layout_; }
  uint64_t bytes() const { return memory_.size() + seals_.size(); }
  // For KvArenaPeer, in any process of this host. Neither spaces nor newlines.
  const std::string& handle() const { return handle_; }
  BlockCopier& copier() const { return means_.copier; }

  // Publishes the digests of the blocks' bytes. Errors of the copier.
  absl::Status Seal(absl::Span<const BlockSeal> seals);
  // From now on seals say something else than the truth. For tests.
  void FalsifySeals() { falsified_ = 1; }

 private:
  KvArena(const KvLayout& layout, int64_t blocks, const KvMeans& means);

  absl::Status SealBatch(absl::Span<const BlockSeal> seals);

  const KvMeans means_;
  const KvLayout layout_;
  const int64_t blocks_;
  const int64_t block_bytes_;
  Ledger ledger_;  // of the memory, which no epoch's ledger could outlive
  ExportedBuffer memory_;
  ExportedBuffer seals_;  // KvArenaHeader
  std::string handle_;
  uint64_t falsified_ = 0;  // bits of a digest
};

// An arena of another rank, opened here for reading.
class KvArenaPeer {
 public:
  // UNAVAILABLE when it cannot be opened, FAILED_PRECONDITION when its blocks have another layout.
  static absl::StatusOr<std::unique_ptr<KvArenaPeer>> Open(absl::string_view handle,
                                                           const KvLayout& layout,
                                                           const KvMeans& means);

  // Of the device.
  const std::byte* block(int64_t index) const {
    return static_cast<const std::byte*>(memory_.data()) + index * block_bytes_;
  }
  int64_t blocks() const { return blocks_; }
  int64_t block_bytes() const { return block_bytes_; }

  // Until the block is sealed with `stamp`. `deadline` is by Clock::Real(). DEADLINE_EXCEEDED,
  // ABORTED (`stopped`, or null).
  absl::Status AwaitSeal(const BlockSeal& seal, absl::Time deadline,
                         const std::atomic<bool>* stopped) const;
  // What the block was last sealed with.
  uint64_t digest(int32_t block) const;

 private:
  KvArenaPeer() = default;

  PeerMemory memory_;
  PeerMemory seals_;
  const KvArenaHeader* header_ = nullptr;
  int64_t blocks_ = 0;
  int64_t block_bytes_ = 0;
};

// A block that comes here from another arena, once that has sealed it.
struct BlockPull {
  const KvArenaPeer* from = nullptr;
  BlockSeal seal;  // there
  int32_t to_block = 0;
};

// Copies blocks, no target twice, in batches of what `to`'s copier takes at a time: each once all
// of it is sealed, and each copy is checked against its seal. OUT_OF_RANGE (a block that an arena
// does not have), FAILED_PRECONDITION (other block sizes): nothing was copied. DEADLINE_EXCEEDED
// (no such seal), ABORTED (`stopped`, which may be null, before another batch), DATA_LOSS (reason
// KV_CORRUPT: a copy has another digest), errors of the copier.
absl::Status PullBlocks(absl::Span<const BlockPull> pulls, KvArena& to, absl::Time deadline,
                        const std::atomic<bool>* stopped);

}  // namespace muster

#endif  // MUSTER_WORKER_CACHE_KV_ARENA_H_
