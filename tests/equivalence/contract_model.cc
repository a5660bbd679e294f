#include "tests/equivalence/contract_model.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "base/error.h"
#include "base/status_macros.h"
#include "worker/cache/block_allocator.h"

namespace muster::testing {
namespace {

absl::Status Refusal(absl::StatusCode code, ErrorReason reason) {
  return MakeError(code, "as the contract has it", {.reason = reason});
}

}  // namespace

std::optional<int64_t> ModelSequence::LengthOf(LayerRange layers) const {
  const auto begin = lengths.begin() + layers.begin, end = lengths.begin() + layers.end;
  if (std::any_of(begin, end, [&](int64_t length) { return length != *begin; })) return {};
  return *begin;
}

const ModelSequence* ContractModel::Find(const std::string& client,
                                         const std::string& sequence) const {
  const auto found = sequences_.find({client, sequence});
  return found == sequences_.end() ? nullptr : &found->second;
}

LayerRange ContractModel::LayersOf(const SequenceSlice& slice) const {
  return slice.layers.value_or(LayerRange{0, options_.layers});
}

bool ContractModel::WouldReplace(const ModelSequence& sequence, int64_t position) const {
  const auto index = static_cast<size_t>(position / kKvBlockTokens);
  return index < sequence.blocks.size() && sequence.blocks[index].use_count() > 1;
}

absl::StatusOr<std::vector<History>> ContractModel::Forward(const MeantBatch& meant) {
  const ForwardBatch& batch = meant.batch;
  MUSTER_RETURN_IF_ERROR(CheckPositions(batch));
  MUSTER_RETURN_IF_ERROR(CheckSequences(batch));
  const std::vector<Growth> growths = GrowthOf(meant);
  MUSTER_RETURN_IF_ERROR(CheckBlocks(growths));
  std::vector<std::shared_ptr<HeldBlock>> replaced;  // until all that is new is there
  for (const auto& [name, index] : growths) {
    auto& blocks = sequences_[name].blocks;
    blocks.resize(std::max(blocks.size(), index + 1));
    replaced.push_back(blocks[index]);
    blocks[index] = std::make_shared<HeldBlock>(free_[index % free_.size()]);
  }
  std::vector<History> histories;
  for (size_t i = 0; i < batch.slices.size(); ++i) {
    const SequenceSlice& slice = batch.slices[i];
    ModelSequence& sequence = sequences_[{batch.client_id, slice.sequence_id}];
    histories.push_back(Write(slice, meant.tokens[i], sequence));
  }
  return histories;
}

absl::Status ContractModel::CheckPositions(const ForwardBatch& batch) const {
  for (const SequenceSlice& slice : batch.slices) {
    const ModelSequence* held = Find(batch.client_id, slice.sequence_id);
    const std::optional<int64_t> length = held == nullptr ? 0 : held->LengthOf(LayersOf(slice));
    if (length == int64_t{slice.first_position}) continue;
    return Refusal(absl::StatusCode::kFailedPrecondition, held == nullptr
                                                              ? ErrorReason::kUnknownSequence
                                                              : ErrorReason::kPositionMismatch);
  }
  return absl::OkStatus();
}

absl::Status ContractModel::CheckSequences(const ForwardBatch& batch) const {
  const auto begin = std::count_if(
      batch.slices.begin(), batch.slices.end(),
      [&](const SequenceSlice& it) { return Find(batch.client_id, it.sequence_id) == nullptr; });
  if (static_cast<int64_t>(sequences_.size()) + begin <= options_.max_sequences) {
    return absl::OkStatus();
  }
  return Refusal(absl::StatusCode::kResourceExhausted, ErrorReason::kKvCapacity);
}

std::vector<ContractModel::Growth> ContractModel::GrowthOf(const MeantBatch& meant) const {
  std::vector<Growth> growths;
  for (size_t i = 0; i < meant.tokens.size(); ++i) {
    const SequenceSlice& slice = meant.batch.slices[i];
    const ModelSequence* held = Find(meant.batch.client_id, slice.sequence_id);
    const int64_t end = slice.first_position + static_cast<int64_t>(meant.tokens[i].size());
    for (int64_t block = slice.first_position / kKvBlockTokens; block < KvBlocksFor(end); ++block) {
      const bool has = held != nullptr && block < static_cast<int64_t>(held->blocks.size());
      if (has && !WouldReplace(*held, block * kKvBlockTokens)) continue;
      growths.push_back({{meant.batch.client_id, slice.sequence_id}, static_cast<size_t>(block)});
    }
  }
  return growths;
}

absl::Status ContractModel::CheckBlocks(const std::vector<Growth>& growths) const {
  std::vector<int64_t> left = free_;
  for (const Growth& growth : growths) --left[growth.index % left.size()];
  if (*std::min_element(left.begin(), left.end()) >= 0) return absl::OkStatus();
  return Refusal(absl::StatusCode::kResourceExhausted, ErrorReason::kKvCapacity);
}

History ContractModel::Write(const SequenceSlice& slice, const History& tokens,
                             ModelSequence& sequence) const {
  sequence.lengths.resize(options_.layers);
  const size_t end = slice.first_position + tokens.size();
  for (size_t position = slice.first_position; position < end; ++position) {
    const uint32_t token = tokens[position - slice.first_position];
    if (position == sequence.tokens.size()) sequence.tokens.push_back(token);
    // Layers that come later must be meant for the same tokens, or the test is wrong.
    if (sequence.tokens[position] != token) std::abort();
  }
  const LayerRange layers = LayersOf(slice);
  for (int layer = layers.begin; layer < layers.end; ++layer) {
    sequence.lengths[layer] = static_cast<int64_t>(end);
  }
  if (!slice.hidden_states.empty()) sequence.rebuildable = false;
  return {sequence.tokens.begin(), sequence.tokens.begin() + static_cast<ptrdiff_t>(end)};
}

absl::StatusOr<Forked> ContractModel::Fork(const ForkOrder& order) {
  const ModelSequence* parent = Find(order.client_id, order.sequence_id);
  if (parent == nullptr) {
    return Refusal(absl::StatusCode::kFailedPrecondition, ErrorReason::kUnknownSequence);
  }
  if (Find(order.client_id, order.new_sequence_id) != nullptr) {
    return Refusal(absl::StatusCode::kAlreadyExists, ErrorReason::kSequenceExists);
  }
  const int64_t most = *std::min_element(parent->lengths.begin(), parent->lengths.end());
  const int64_t tokens = order.tokens.value_or(static_cast<uint32_t>(most));
  if (tokens < 1 || tokens > most) {
    return Refusal(absl::StatusCode::kOutOfRange, ErrorReason::kPositionMismatch);
  }
  if (static_cast<int>(sequences_.size()) == options_.max_sequences) {
    return Refusal(absl::StatusCode::kResourceExhausted, ErrorReason::kKvCapacity);
  }
  ModelSequence child = *parent;
  child.tokens.resize(static_cast<size_t>(tokens));
  child.lengths.assign(options_.layers, tokens);
  child.blocks.resize(static_cast<size_t>(KvBlocksFor(tokens)));
  const auto shared = static_cast<int64_t>(child.blocks.size());
  sequences_[{order.client_id, order.new_sequence_id}] = std::move(child);
  return Forked{.tokens = tokens, .shared_blocks = shared};
}

int ContractModel::Free(const FreeOrder& order) {
  const auto before = sequences_.size();
  for (const std::string& id : order.sequence_ids) sequences_.erase({order.client_id, id});
  if (order.all) {
    std::erase_if(sequences_, [&](const auto& it) { return it.first.first == order.client_id; });
  }
  return static_cast<int>(before - sequences_.size());
}

Capacity ContractModel::capacity() const {
  std::vector<int64_t> left = free_;
  int64_t prompt = 0;
  for (size_t block = 0; left[block % left.size()]-- > 0; ++block) prompt += kKvBlockTokens;
  const auto held = static_cast<int>(sequences_.size());
  return {
      .total_blocks = options_.blocks_per_rank * options_.cp,
      .free_blocks = std::accumulate(free_.begin(), free_.end(), int64_t{0}),
      .max_prompt_tokens =
          held == options_.max_sequences ? 0 : std::min<int64_t>(prompt, options_.max_positions),
      .sequences = held,
      .max_sequences = options_.max_sequences,
      .not_rebuildable =
          static_cast<int>(std::count_if(sequences_.begin(), sequences_.end(),
                                         [](const auto& it) { return !it.second.rebuildable; }))};
}

}  // namespace muster::testing
