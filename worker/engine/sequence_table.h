// The sequences that a replica holds, as its leader knows them.
#ifndef MUSTER_WORKER_ENGINE_SEQUENCE_TABLE_H_
#define MUSTER_WORKER_ENGINE_SEQUENCE_TABLE_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "worker/cache/block_allocator.h"
#include "worker/engine/batch.h"
#include "worker/engine/step.h"

namespace muster {

// How much a replica can still take.
struct Capacity {
  int64_t total_blocks = 0;  // over all cp ranks
  int64_t free_blocks = 0;
  int64_t max_prompt_tokens = 0;  // of a new sequence
  int sequences = 0;              // held now
};

// Names sequences, gives them slots and KV blocks, and writes what changes into steps. Touches no
// memory of a device. Used by the leader's device thread.
class SequenceTable {
 public:
  struct Options {
    int max_sequences = 0;
    int max_positions = 0;
    int cp = 1;
    int64_t blocks_per_rank = 0;
  };
  explicit SequenceTable(const Options& options);

  // Appends the slices of a batch that CheckBatch passed, and fills in `step` all but its stamp.
  // All or nothing: on an error no sequence, slot or block has changed. FAILED_PRECONDITION (a
  // first position does not continue its sequence), RESOURCE_EXHAUSTED (KV blocks, or sequences
  // held; with the numbers).
  absl::Status Append(const ForwardBatch& batch, Step& step);

  // Forgets sequences of a client; an unknown one is no error. Returns how many were held. Their
  // slots are named as freed in the next step.
  int Free(const std::string& client_id, const std::vector<std::string>& sequence_ids);

  Capacity capacity() const;
  int64_t used_blocks(int cp_rank) const {
    return options_.blocks_per_rank - allocator_.free_blocks(cp_rank);
  }

 private:
  struct Sequence {
    int slot = 0;
    std::vector<int32_t> tokens;
    std::vector<BlockGrant> blocks;
  };
  using Key = std::pair<std::string, std::string>;  // client, sequence

  absl::Status CheckPositions(const ForwardBatch& batch) const;
  absl::Status CheckSlots(const ForwardBatch& batch) const;
  absl::StatusOr<std::vector<std::vector<BlockGrant>>> AllocateBlocks(const ForwardBatch& batch);
  // Names the first sequence that does not fit.
  absl::Status NoRoom(const ForwardBatch& batch, const std::vector<KvGrowth>& growths,
                      const absl::Status& reason) const;
  int64_t LengthOf(const ForwardBatch& batch, const SequenceSlice& slice) const;
  Sequence& FindOrBegin(const Key& key, Step& step);

  const Options options_;
  KvBlockAllocator allocator_;
  std::map<Key, Sequence> sequences_;
  std::vector<int> free_slots_;       // stack; the lowest is on top at first
  std::vector<int32_t> freed_slots_;  // that followers do not know of yet
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_SEQUENCE_TABLE_H_
