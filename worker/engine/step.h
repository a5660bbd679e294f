// What the leader stamps and every rank of a replica runs: one forward of one batch.
#ifndef MUSTER_WORKER_ENGINE_STEP_H_
#define MUSTER_WORKER_ENGINE_STEP_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/ids.h"
#include "worker/model/model.h"

namespace muster {

// One new token of a sequence.
struct StepRow {
  int32_t token = 0;
  int32_t position = 0;  // in its sequence, from 0
  int32_t slot = 0;      // of its sequence
  friend bool operator==(const StepRow&, const StepRow&) = default;
};

// A sequence that begins with blocks of another.
struct StepFork {
  int32_t slot = 0;
  int32_t parent = 0;  // slot
  int32_t blocks = 0;  // first blocks of the parent, over all cp ranks
  friend bool operator==(const StepFork&, const StepFork&) = default;
};

// A KV block that a sequence got. It lies on cp rank `block % cp`, at index `block / cp` of its
// table there.
struct StepBlock {
  int32_t slot = 0;
  int32_t block = 0;     // of the sequence, from 0
  int32_t arena = 0;     // block of that cp rank's arena
  int32_t replaces = 0;  // 1: takes the place, and the contents, of the one that is there
  friend bool operator==(const StepBlock&, const StepBlock&) = default;
};

// A KV block that moves from a cp rank of one epoch to one of the next. Its source seals it, which
// tells whoever copies it what must arrive.
struct StepMove {
  int32_t from = 0;        // cp rank in the former epoch
  int32_t from_arena = 0;  // block of that rank's arena
  int32_t to = 0;          // cp rank in the next epoch
  int32_t to_arena = 0;
  int32_t stamp = 0;  // of the seal; never used twice by a replica
  friend bool operator==(const StepMove&, const StepMove&) = default;
};

// What a stamp tells the ranks to do. The first is all that an epoch needs by itself; the others
// bring it to its successor.
enum class StepKind : int32_t {
  kRun = 0,     // change the tables, run the rows
  kSlot = 1,    // run nothing while the successor uses the devices
  kSeal = 2,    // seal the blocks that `moves` take from here
  kHold = 3,    // run nothing more until kSwitch or kResume
  kSwitch = 4,  // the successor serves from here on. Of a successor: it serves
  kResume = 5,  // it does not: run on
  kPull = 6,    // of a successor: change the tables, copy the blocks that `moves` bring here
};

// What is gathered of the logits after one row, beside their summary.
enum class OutputKind : int32_t {
  kBest = 0,      // the candidates
  kDraw = 1,      // the candidates, and the winner of a draw among all tokens
  kFiltered = 2,  // the candidates, and all logits where those do not tell what the filter keeps
  kWhole = 3,     // all logits, and no candidates
};

// What to gather of the logits after one row.
struct StepOutput {
  int32_t row = 0;
  int32_t candidates = 0;         // best tokens of every vocabulary shard, 0 to kMaxCandidates
  float inverse_temperature = 1;  // of the summary and the draw; finite
  OutputKind kind = OutputKind::kBest;
  uint32_t top_k = 0;  // of a kFiltered, as of the next
  float top_p = 1;     // in (0, 1]
  uint64_t seed = 0;   // of a kDraw, whose position is the one after the row's
  friend bool operator==(const StepOutput&, const StepOutput&) = default;
};

// Order within a step: free, begin, fork, blocks, rows. A step without rows changes tables only.
struct Step {
  // Candidates of one row that are gathered at most.
  static constexpr int kMaxCandidates = 256;
  // Moves and blocks of one kPull at most.
  static constexpr int kMaxMoves = 512;

  Epoch epoch;
  StepNumber number;
  StepKind kind = StepKind::kRun;
  int32_t bucket = 0;         // rows that the step is padded to
  int32_t output_bucket = 0;  // outputs that it is padded to; 0 when there are none
  LayerRange layers;          // that the rows go through
  int32_t from_hidden = 0;  // 1: hidden states enter, which the leader has, and tokens mean nothing
  int32_t hidden_of = -1;   // what enters this layer is kept; -1: nothing is
  std::vector<int32_t> freed_slots;
  std::vector<int32_t> new_slots;
  std::vector<StepFork> forks;
  std::vector<StepBlock> blocks;
  std::vector<StepRow> rows;
  std::vector<StepOutput> outputs;
  std::vector<StepMove> moves;

  friend bool operator==(const Step&, const Step&) = default;
};

// What a step may name.
struct StepBounds {
  StepLimits limits;
  int vocabulary = 0;
  int max_positions = 0;
  int layers = 0;
  int cp = 1;
  int64_t arena_blocks = 0;  // per rank
  int other_cp = 1;          // of the epoch that moves come from or go to
};

// Bytes of the longest step within `limits`.
size_t MaxStepBytes(const StepLimits& limits);

// Writes `step` to `bytes`, which keeps its capacity: little-endian words, then a digest of them.
void EncodeStep(const Step& step, std::string& bytes);

// Reads what EncodeStep wrote into `step`, whose vectors keep their capacity. DATA_LOSS when the
// length or the digest is wrong, INVALID_ARGUMENT when a count is beyond `limits`; `step` is then
// unspecified.
absl::Status DecodeStep(absl::string_view bytes, const StepLimits& limits, Step& step);

// INVALID_ARGUMENT names the first field out of bounds.
absl::Status CheckStep(const Step& step, const StepBounds& bounds);

// Rows that `rows` are padded to: 1, 2, 4, .. up to max_rows.
int BucketOf(int rows);

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_STEP_H_
