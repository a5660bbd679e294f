#ifndef MUSTER_WORKER_CACHE_KV_CACHE_H_
#define MUSTER_WORKER_CACHE_KV_CACHE_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/kv_descriptor.h"
#include "worker/device/device.h"

namespace muster {

// One rank's paged KV cache: the block tables and the descriptor that kernels read, at addresses
// that never change, and later the arena. Written between steps only, by the device thread. Device
// and ledger outlive it. Ledger tag "kv".
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

  // Once, after capture. RESOURCE_EXHAUSTED names wanted and free bytes.
  absl::Status AllocateArena(int64_t blocks);

  // Block `local_index` of this rank's part of a sequence lies in arena block `block`.
  // OUT_OF_RANGE: a number that the tables or the arena do not have.
  absl::Status SetBlock(int sequence, int local_index, int block);
  // Forgets all blocks of a sequence.
  absl::Status ClearSequence(int sequence);

  const Options& options() const { return options_; }
  int64_t blocks() const { return descriptor()->num_blocks; }
  KvDescriptor* descriptor() const { return descriptor_.as<KvDescriptor>(); }
  int32_t* block_tables() const { return tables_.as<int32_t>(); }

 private:
  KvCache(const Options& options, Device& device, Ledger& ledger)
      : options_(options), device_(device), ledger_(ledger) {}

  absl::Status CheckSequence(int sequence) const;
  int32_t* Row(int sequence) const {
    return block_tables() + int64_t{sequence} * options_.max_local_blocks;
  }

  // Constant after construction.
  const Options options_;
  Device& device_;
  Ledger& ledger_;

  // Device thread only.
  Buffer tables_;      // int32_t [max_sequences, max_local_blocks], -1 where none
  Buffer descriptor_;  // one KvDescriptor
  Buffer arena_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_CACHE_KV_CACHE_H_
