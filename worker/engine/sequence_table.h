// The sequences that a replica holds, as its leader knows them.
#ifndef MUSTER_WORKER_ENGINE_SEQUENCE_TABLE_H_
#define MUSTER_WORKER_ENGINE_SEQUENCE_TABLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/takeover.h"
#include "worker/cache/block_allocator.h"
#include "worker/engine/batch.h"
#include "worker/engine/layer_lengths.h"
#include "worker/engine/step.h"

namespace muster {

// How much a replica can still take.
struct Capacity {
  int64_t total_blocks = 0;  // over all cp ranks
  int64_t free_blocks = 0;
  int64_t max_prompt_tokens = 0;  // of a new sequence
  int sequences = 0;              // held now
  int max_sequences = 0;
  int not_rebuildable = 0;  // of those held: fed with hidden states
  friend bool operator==(const Capacity&, const Capacity&) = default;
};

// A sequence that is to begin with the tokens of another.
struct ForkOrder {
  std::string client_id;
  std::string sequence_id;
  std::string new_sequence_id;
  std::optional<uint32_t> tokens;  // none: all that the sequence has in all layers
  std::optional<Epoch> expected_epoch;
};

struct Forked {
  Epoch epoch;
  int64_t tokens = 0;         // of the new sequence
  int64_t shared_blocks = 0;  // KV blocks that the two share
};

// A step, and the slices of the batch that it runs, in the order of its rows.
struct PlannedStep {
  Step step;
  std::vector<int> slices;
};

// How the next epoch deals KV blocks over its cp ranks.
struct NextDeal {
  int cp = 1;
  int64_t blocks_per_rank = 0;
  // Blocks are moved; otherwise all KV is computed again.
  bool keeps_kv = true;
  int tp = 1;
  // By cp rank: how many of its tp ranks other workers hold than now, to which all that it keeps
  // has to be copied. cp ranks beyond its end are as before.
  std::vector<int> replaced;
};

// Which blocks to hand over now.
enum class MoveScope {
  kSettled,  // those that are hardly written any more: a pause is to come
  kAll       // nothing is written any more
};

// Names sequences, gives them slots and KV blocks, and writes what changes into steps. Touches no
// memory of a device. Used by the leader's device thread.
class SequenceTable {
 public:
  struct Options {
    BatchLimits limits;
    int max_sequences = 0;
    int cp = 1;
    int64_t blocks_per_rank = 0;
  };
  explicit SequenceTable(const Options& options);

  // Appends the slices of a batch that CheckBatch passed, and fills in `steps` all but their
  // stamps: one for all slices that run the same layers in the same way. All or nothing: on an
  // error no sequence, slot or block has changed. FAILED_PRECONDITION (a first position does not
  // continue its sequence), RESOURCE_EXHAUSTED (KV blocks, or sequences held; with the numbers).
  absl::Status Append(const ForwardBatch& batch, std::vector<PlannedStep>& steps);

  // Begins a sequence with tokens of another, whose KV blocks it shares until one of the two writes
  // into one, and fills in `step`, which has no rows. All or nothing. FAILED_PRECONDITION (unknown
  // sequence), ALREADY_EXISTS, OUT_OF_RANGE (more tokens than it has in all layers, or none),
  // RESOURCE_EXHAUSTED (sequences held).
  absl::StatusOr<Forked> Fork(const ForkOrder& order, Step& step);

  // Forgets sequences of a client; an unknown one is no error. Returns how many were held. Their
  // slots are named as freed in the next step.
  int Free(const std::string& client_id, const std::vector<std::string>& sequence_ids);
  int FreeAll(const std::string& client_id);

  // Bringing the sequences to another epoch (sequence_moves.cc): BeginMoves, PlanMoves until there
  // is nothing left, then Commit or Rollback. Meanwhile the table goes on as ever; what is written,
  // freed or forked is handed over again.

  // RESOURCE_EXHAUSTED, FAILED_PRECONDITION (sequences that cannot be computed again, where KV is
  // not kept, and that `drop` does not name): names them, with numbers. `await_copies` waits until
  // no rank copies what was planned; false when that cannot be known.
  absl::Status BeginMoves(const NextDeal& next, const std::vector<SequenceName>& drop,
                          std::function<bool()> await_copies);
  // Fills in the next kPull for the ranks of the next epoch: at most `max_moves` of blocks, and
  // changes of their tables. All of the former one has been copied. Returns whether there is more.
  // RESOURCE_EXHAUSTED when a rank has no room for what it is to get, beside what it has.
  absl::StatusOr<bool> PlanMoves(MoveScope scope, int max_moves, Step& step);
  // The next epoch serves: all that was planned is where it is to be. PlanMoves has left nothing.
  absl::Status Commit();
  // It does not, and no rank copies any more before it runs the next step. OK without BeginMoves.
  void Rollback();
  bool moving() const { return moving_.has_value(); }
  // Right after Commit: blocks that it moved, and those that stayed.
  int64_t blocks_moved() const { return blocks_moved_; }
  int64_t blocks_kept() const { return used_blocks() - blocks_moved_; }

  // After a Commit that kept no KV: the next tokens to compute, at most `max_tokens` of one
  // sequence; null when all are there.
  std::optional<ForwardBatch> NextRebuild(int max_tokens);
  int64_t tokens_to_rebuild() const { return tokens_to_rebuild_; }
  // That the last Commit lost.
  int dropped() const { return dropped_; }

  CacheSummary Summary() const;
  Capacity capacity() const;
  int64_t used_blocks() const { return allocator_.total_blocks() - allocator_.free_blocks(); }
  int64_t used_blocks(int cp_rank) const {
    return blocks_per_rank_ - allocator_.free_blocks(cp_rank);
  }

 private:
  struct Sequence {
    int slot = 0;
    LayerLengths lengths;
    std::vector<int32_t> tokens;     // as far as the first layer is; 0 where it was fed otherwise
    std::vector<BlockGrant> blocks;  // 0, 1, 2, ... of it
    bool rebuildable = true;         // from its tokens
    absl::Time touched;              // when it was last written
    int64_t handed = 0;              // first blocks of it that the next epoch's ranks know
    bool told = false;               // whether they know its slot
    std::vector<int32_t> history;    // tokens to compute again, those that are done included
  };
  // Pointers to sequences stay valid while others come and go.
  using Sequences = absl::node_hash_map<std::string, Sequence>;

  // The sequence of each slice, null where it is new.
  void FindAll(const ForwardBatch& batch);
  int64_t PositionAfter(const SequenceSlice& slice) const {
    return int64_t{slice.first_position} + PositionsOf(slice, options_.limits);
  }
  absl::Status CheckPositions(const ForwardBatch& batch) const;
  absl::Status CheckSlots(int64_t wanted) const;
  KvGrowth GrowthOf(const SequenceSlice& slice, const Sequence* sequence) const;
  absl::StatusOr<std::vector<std::vector<BlockGrant>>> AllocateBlocks(const ForwardBatch& batch);
  // Names the first sequence that does not fit.
  absl::Status NoRoom(const ForwardBatch& batch, const std::vector<KvGrowth>& growths,
                      const absl::Status& reason) const;

  Sequence& Begin(const std::string& client_id, const std::string& sequence_id, Step& step);
  // The step of `steps` for slices like this one.
  PlannedStep& StepFor(const SequenceSlice& slice, std::vector<PlannedStep>& steps) const;
  void AppendBlocks(const std::vector<BlockGrant>& grants, Sequence& sequence, Step& step);
  // One holder less; what nobody holds any more is not to be moved either.
  void FreeBlocks(const std::vector<BlockGrant>& blocks);
  void AppendRows(const SequenceSlice& slice, Sequence& sequence, Step& step) const;
  void Release(const Sequence& sequence);

  // Where a block is: its cp rank and arena block.
  using BlockPlace = std::pair<int, int32_t>;
  struct Moving {
    NextDeal next;
    std::map<BlockPlace, StepMove> moves;  // by where they come from
    std::function<bool()> await_copies;
    int32_t copied_stamp = 0;          // moves up to this one have been copied
    std::vector<StepMove> forgotten;   // whose targets may still be copied to
    std::vector<int32_t> freed_slots;  // that the next epoch's ranks know
    bool settled = true;               // nothing is moved before the pause any more
  };

  template <typename Fn>
  void ForEachSequence(Fn fn);
  BlockPlace PlaceOf(const BlockGrant& block) const {
    return {static_cast<int>(block.logical % options_.cp), block.local};
  }
  // Hands over what `sequence` has up to block `end`; false when the step is full.
  absl::StatusOr<bool> HandOver(Sequence& sequence, int64_t end, int max_moves, Step& step);
  // Where a block is to be, and how it gets there if it has to.
  absl::StatusOr<int32_t> NextPlaceOf(const BlockGrant& block, Step& step);
  // A block is written, or is nobody's any more: what was copied of it is worth nothing. Waits for
  // a copy that is under way, which would not find what was sealed.
  void ForgetMove(const BlockPlace& place);
  // False when it cannot be known; whoever copies then fails, and nothing of it is used.
  bool AwaitCopies();
  // Nobody copies to the targets of moves that were forgotten.
  void FreeForgotten();
  // Positions from `first` on are written; the block of the first is replaced by a copy, or not.
  void NoteWrite(Sequence& sequence, int64_t first, bool replaces);
  // Makes room for what is asked for now; moves wait for the pause.
  void GiveUpReservations();
  void CommitKept();
  void CommitRebuild();
  absl::Status CheckRebuildable(const NextDeal& next, const std::vector<SequenceName>& drop);

  Options options_;
  int64_t blocks_per_rank_;
  KvBlockAllocator allocator_;
  absl::flat_hash_map<std::string, Sequences> clients_;  // none without a sequence
  int held_ = 0;                                         // sequences
  int not_rebuildable_ = 0;
  std::vector<int> free_slots_;       // stack; the lowest is on top at first
  std::vector<int32_t> freed_slots_;  // that followers do not know of yet
  std::vector<Sequence*> found_;      // of the batch that is appended
  std::optional<Moving> moving_;
  std::vector<SequenceName> drop_;  // where KV is not kept
  int32_t last_stamp_ = 0;
  int64_t blocks_moved_ = 0;
  int64_t tokens_to_rebuild_ = 0;
  int dropped_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_SEQUENCE_TABLE_H_
