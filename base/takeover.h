// What it takes, and took, to bring a replica's sequences from one epoch to the next: plain values
// that the worker tells the coordinator.
#ifndef MUSTER_BASE_TAKEOVER_H_
#define MUSTER_BASE_TAKEOVER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace muster {

// A sequence as its client names it.
struct SequenceName {
  std::string client_id;
  std::string sequence_id;
  friend auto operator<=>(const SequenceName&, const SequenceName&) = default;
};

// What an epoch took over from the one before it; mirrors muster.v1.ActivateResult. All 0 where
// there was none. Blocks are counted once over all cp ranks, bytes over all ranks.
struct Takeover {
  absl::Duration pause;  // in which no step ran
  uint64_t kv_blocks_moved = 0;
  uint64_t kv_blocks_kept = 0;
  uint64_t kv_bytes_moved = 0;
  uint64_t kv_bytes_in_pause = 0;
  absl::Duration copy_time;          // of the busiest rank
  double copy_bytes_per_second = 0;  // of a plain copy
  int sequences = 0;
  uint64_t tokens_rebuilt = 0;
  int sequences_dropped = 0;

  friend bool operator==(const Takeover&, const Takeover&) = default;
};

// What the sequences of a replica hold; mirrors muster.v1.DescribeCacheResponse.
struct CacheSummary {
  static constexpr size_t kMaxNames = 64;

  std::vector<uint64_t> blocks_by_index;  // held blocks that are number 0, 1, 2, ... of a sequence
  uint64_t blocks_per_rank = 0;           // of each cp rank's arena
  int block_tokens = 0;
  uint64_t block_bytes = 0;  // on one rank
  int sequences = 0;
  uint64_t tokens = 0;
  std::vector<SequenceName> not_rebuildable;  // the first kMaxNames
  int not_rebuildable_count = 0;
  int active_sequences = 0;
  double copy_bytes_per_second = 0;
  double prefill_tokens_per_second = 0;
  absl::Duration round_trip;

  friend bool operator==(const CacheSummary&, const CacheSummary&) = default;
};

}  // namespace muster

#endif  // MUSTER_BASE_TAKEOVER_H_
