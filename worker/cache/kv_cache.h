#ifndef MUSTER_WORKER_CACHE_KV_CACHE_H_
#define MUSTER_WORKER_CACHE_KV_CACHE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/kv_descriptor.h"
#include "worker/cache/kv_arena.h"
#include "worker/device/device.h"

namespace muster {

// One rank's paged KV cache: the block tables and the descriptor that kernels read, at addresses
// that never change, and later its blocks. Written between steps only, by the device thread, on the
// host: Flush brings the changes to the device. Device and ledger outlive it. Ledger tag "kv".
class KvCache {
 public:
  struct Options {
    KvLayout layout;
    int max_sequences = 0;     // sequence slots
    int max_local_blocks = 0;  // of one sequence on this rank
  };

  // The tables are empty, and there is no arena: kernels read and write nothing.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(const Options& options, Device& device,
                                                         Ledger& ledger);

  // The blocks, once, after capture; caches of several epochs may have the same. Charges what they
  // take. INVALID_ARGUMENT (another layout), FAILED_PRECONDITION (there are some already).
  absl::Status Attach(std::shared_ptr<KvArena> arena);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // Block `local_index` of this rank's part of a sequence lies in arena block `block`.
  // OUT_OF_RANGE: a number that the tables or the arena do not have.
  absl::Status SetBlock(int sequence, int local_index, int block);
  // The same in place of the block that is there, whose contents it takes: enqueues the copy.
  // OUT_OF_RANGE, and when there is none.
  absl::Status ReplaceBlock(Stream& stream, int sequence, int local_index, int block);
  // `sequence` gets the first `local_blocks` blocks of `parent`; the rest of its own are forgotten.
  absl::Status ShareBlocks(int sequence, int parent, int local_blocks);
  // Forgets all blocks of a sequence.
  absl::Status ClearSequence(int sequence);

  // Enqueues the copies that show kernels what was changed since the last Flush. Nothing is changed
  // before they have run.
  absl::Status Flush(Stream& stream);

  const Options& options() const { return options_; }
  int64_t blocks() const { return arena_ == nullptr ? 0 : arena_->blocks(); }
  const std::shared_ptr<KvArena>& arena() const { return arena_; }
  // Blocks of the arena that stand in a table.
  int64_t used_blocks() const { return used_blocks_; }
  // Of the device: what kernels are given.
  const KvDescriptor* descriptor() const { return descriptor_.as<KvDescriptor>(); }
  // As the host has it: the arena block at `local_index` of a sequence, -1 where there is none.
  int32_t BlockAt(int sequence, int local_index) const { return Row(sequence)[local_index]; }

 private:
  KvCache(const Options& options, Device& device, Ledger& ledger)
      : options_(options), device_(device), ledger_(ledger) {}

  absl::Status CheckSequence(int sequence) const;
  absl::Status CheckEntry(int sequence, int local_index) const;
  // Writes an entry of the tables, -1 where there is to be none, and counts.
  void Write(int sequence, int local_index, int32_t block);
  int64_t RowOffset(int sequence) const { return int64_t{sequence} * options_.max_local_blocks; }
  int32_t* Row(int sequence) const { return host_tables_.as<int32_t>() + RowOffset(sequence); }

  // Constant after construction.
  const Options options_;
  Device& device_;
  Ledger& ledger_;

  // Device thread only.
  Buffer host_tables_;      // int32_t [max_sequences, max_local_blocks], -1 where none
  Buffer tables_;           // the same on the device
  Buffer host_descriptor_;  // one KvDescriptor
  Buffer descriptor_;       // the same on the device
  // What has yet to be flushed.
  struct Changed {
    int begin = 0;
    int end = 0;
  };
  std::vector<Changed> changed_;    // [max_sequences]: local indices
  std::vector<int> changed_slots_;  // whose range is not empty
  bool descriptor_changed_ = true;
  std::shared_ptr<KvArena> arena_;
  std::vector<int32_t> holders_;  // [blocks]: entries of the tables that name it
  int64_t used_blocks_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_CACHE_KV_CACHE_H_
