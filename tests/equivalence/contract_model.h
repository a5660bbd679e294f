// What a replica promises of sequences and KV blocks, in the plainest terms.
#ifndef MUSTER_TESTS_EQUIVALENCE_CONTRACT_MODEL_H_
#define MUSTER_TESTS_EQUIVALENCE_CONTRACT_MODEL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/equivalence/history_oracle.h"
#include "worker/engine/batch.h"
#include "worker/engine/request_queue.h"
#include "worker/engine/sequence_table.h"

namespace muster::testing {

// A batch, and the tokens that each of its slices stands for: where it has hidden states, those
// that they were made of.
struct MeantBatch {
  ForwardBatch batch;
  std::vector<History> tokens;
};

// A KV block, which is free again when its last holder lets go of it.
class HeldBlock {
 public:
  explicit HeldBlock(int64_t& free) : free_(free) { --free_; }
  ~HeldBlock() { ++free_; }
  HeldBlock(const HeldBlock&) = delete;
  HeldBlock& operator=(const HeldBlock&) = delete;

 private:
  int64_t& free_;
};

struct ModelSequence {
  History tokens;                // as many as the layer that is farthest
  std::vector<int64_t> lengths;  // of each layer
  std::vector<std::shared_ptr<HeldBlock>> blocks;
  bool rebuildable = true;

  // Of all layers of a range; none where they differ.
  std::optional<int64_t> LengthOf(LayerRange layers) const;
};

// Sequences as lists of tokens, blocks as counted references. Knows no slots, steps or devices.
class ContractModel {
 public:
  struct Options {
    int layers = 0;
    int max_positions = 0;
    int max_sequences = 0;
    int cp = 1;
    int64_t blocks_per_rank = 0;
  };
  explicit ContractModel(const Options& options)
      : options_(options), free_(options.cp, options.blocks_per_rank) {}

  // The histories that end with the slices; or a refusal (code and reason), which changes nothing.
  absl::StatusOr<std::vector<History>> Forward(const MeantBatch& meant);
  absl::StatusOr<Forked> Fork(const ForkOrder& order);
  int Free(const FreeOrder& order);

  Capacity capacity() const;
  const Options& options() const { return options_; }
  // Null when it is not held.
  const ModelSequence* Find(const std::string& client, const std::string& sequence) const;
  // Blocks of it that others hold as well, and that writing at `position` would replace.
  bool WouldReplace(const ModelSequence& sequence, int64_t position) const;

 private:
  using Name = std::pair<std::string, std::string>;  // client, sequence
  // A block that a sequence is to hold as its number `index`.
  struct Growth {
    Name name;
    size_t index = 0;
  };

  LayerRange LayersOf(const SequenceSlice& slice) const;
  absl::Status CheckPositions(const ForwardBatch& batch) const;
  absl::Status CheckSequences(const ForwardBatch& batch) const;
  // All that the batch takes, seen before any of it is taken.
  std::vector<Growth> GrowthOf(const MeantBatch& meant) const;
  absl::Status CheckBlocks(const std::vector<Growth>& growths) const;
  History Write(const SequenceSlice& slice, const History& tokens, ModelSequence& sequence) const;

  const Options options_;
  std::vector<int64_t> free_;  // blocks, by cp rank
  std::map<Name, ModelSequence> sequences_;
};

}  // namespace muster::testing

#endif  // MUSTER_TESTS_EQUIVALENCE_CONTRACT_MODEL_H_
