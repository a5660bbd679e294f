#include "worker/engine/sequence_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/text.h"

namespace muster {
SequenceTable::SequenceTable(const Options& options)
    : options_(options),
      blocks_per_rank_(options.blocks_per_rank),
      allocator_(options.cp, options.blocks_per_rank) {
  for (int slot = options.max_sequences - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

absl::Status SequenceTable::Append(const ForwardBatch& batch, std::vector<PlannedStep>& steps) {
  FindAll(batch);
  MUSTER_RETURN_IF_ERROR(CheckPositions(batch));
  MUSTER_RETURN_IF_ERROR(CheckSlots(std::count(found_.begin(), found_.end(), nullptr)));
  MUSTER_ASSIGN_OR_RETURN(const auto granted, AllocateBlocks(batch));
  // Nothing can fail from here on.
  steps.clear();
  for (size_t i = 0; i < batch.slices.size(); ++i) {
    const SequenceSlice& slice = batch.slices[i];
    PlannedStep& planned = StepFor(slice, steps);
    Step& step = planned.step;
    Sequence& sequence =
        found_[i] != nullptr ? *found_[i] : Begin(batch.client_id, slice.sequence_id, step);
    const bool replaces = found_[i] != nullptr && !granted[i].empty() &&
                          granted[i].front().logical < static_cast<int64_t>(sequence.blocks.size());
    NoteWrite(sequence, slice.first_position, replaces);
    AppendBlocks(granted[i], sequence, step);
    AppendRows(slice, sequence, step);
    if (!slice.hidden_states.empty() && sequence.rebuildable) {
      sequence.rebuildable = false;
      ++not_rebuildable_;
    }
    planned.slices.push_back(static_cast<int>(i));
  }
  steps.front().step.freed_slots.swap(freed_slots_);
  for (auto& [step, slices] : steps) {
    step.bucket = BucketOf(static_cast<int>(step.rows.size()));
    if (!step.outputs.empty()) step.output_bucket = BucketOf(static_cast<int>(step.outputs.size()));
  }
  return absl::OkStatus();
}

void SequenceTable::FindAll(const ForwardBatch& batch) {
  found_.assign(batch.slices.size(), nullptr);
  const auto client = clients_.find(batch.client_id);
  if (client == clients_.end()) return;
  for (size_t i = 0; i < found_.size(); ++i) {
    const auto found = client->second.find(batch.slices[i].sequence_id);
    if (found != client->second.end()) found_[i] = &found->second;
  }
}

absl::Status SequenceTable::CheckPositions(const ForwardBatch& batch) const {
  for (size_t i = 0; i < batch.slices.size(); ++i) {
    const SequenceSlice& slice = batch.slices[i];
    const LayerRange layers = LayersOf(slice, options_.limits);
    const std::optional<int64_t> length = found_[i] == nullptr ? 0 : found_[i]->lengths.Of(layers);
    if (length == slice.first_position) continue;
    if (!length.has_value()) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition,
          absl::StrCat("sequence ", Quoted(slice.sequence_id), ": layers ", layers.begin, " to ",
                       layers.end, " do not all have the same length, so none continues it"),
          {.reason = ErrorReason::kPositionMismatch});
    }
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("sequence ", Quoted(slice.sequence_id), " has ", *length,
                                  " tokens; the slice begins at position ", slice.first_position),
                     {.reason = found_[i] == nullptr ? ErrorReason::kUnknownSequence
                                                     : ErrorReason::kPositionMismatch});
  }
  return absl::OkStatus();
}

absl::Status SequenceTable::CheckSlots(int64_t wanted) const {
  if (wanted <= static_cast<int64_t>(free_slots_.size())) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat(wanted, wanted == 1 ? " sequence begins" : " sequences begin", "; ", held_,
                   " are held, and at most ", options_.max_sequences, " can be. Free sequences"),
      {.reason = ErrorReason::kKvCapacity, .retriable = true});
}

KvGrowth SequenceTable::GrowthOf(const SequenceSlice& slice, const Sequence* sequence) const {
  if (sequence == nullptr) return {.from = 0, .to = PositionAfter(slice)};
  const int64_t longest = sequence->lengths.longest();
  KvGrowth growth{.from = longest, .to = std::max(longest, PositionAfter(slice))};
  // Of the blocks that are there only the first to be written can be shared: a fork takes no token
  // that a layer has yet to write.
  const int64_t first = slice.first_position / kKvBlockTokens;
  if (first < static_cast<int64_t>(sequence->blocks.size()) &&
      allocator_.IsShared(sequence->blocks[first])) {
    growth.replaced = first;
  }
  return growth;
}

absl::StatusOr<std::vector<std::vector<BlockGrant>>> SequenceTable::AllocateBlocks(
    const ForwardBatch& batch) {
  std::vector<KvGrowth> growths;
  growths.reserve(batch.slices.size());
  for (size_t i = 0; i < batch.slices.size(); ++i) {
    growths.push_back(GrowthOf(batch.slices[i], found_[i]));
  }
  auto granted = allocator_.Allocate(growths);
  if (!granted.ok() && moving_.has_value() && moving_->settled) {
    GiveUpReservations();
    granted = allocator_.Allocate(growths);
  }
  if (absl::IsResourceExhausted(granted.status())) return NoRoom(batch, growths, granted.status());
  return granted;
}

absl::Status SequenceTable::NoRoom(const ForwardBatch& batch, const std::vector<KvGrowth>& growths,
                                   const absl::Status& reason) const {
  std::vector<int64_t> needed(options_.cp, 0);
  int64_t before = 0;
  for (size_t i = 0; i < growths.size(); ++i) {
    const int64_t begin = KvBlocksFor(growths[i].from), end = KvBlocksFor(growths[i].to);
    bool fits = true;
    if (growths[i].replaced >= 0) {
      const int rank = static_cast<int>(growths[i].replaced % options_.cp);
      fits &= ++needed[rank] <= allocator_.free_blocks(rank);
    }
    for (int64_t block = begin; block < end; ++block) {
      const int rank = static_cast<int>(block % options_.cp);
      fits &= ++needed[rank] <= allocator_.free_blocks(rank);
    }
    const int64_t wanted = end - begin + (growths[i].replaced >= 0 ? 1 : 0);
    if (fits) {
      before += wanted;
      continue;
    }
    const std::string others =
        before == 0 ? "" : absl::StrCat(" after ", WithCommas(before), " for others of the step");
    // Blocks are dealt to the cp ranks in turn, so one of them can be full before the rest.
    const std::string uneven = before + wanted > allocator_.free_blocks()
                                   ? ""
                                   : ", but not where this sequence's next ones must lie";
    return MakeError(absl::StatusCode::kResourceExhausted,
                     absl::StrCat("sequence ", Quoted(batch.slices[i].sequence_id), " would need ",
                                  WithCommas(wanted), " KV blocks", others, "; ",
                                  WithCommas(allocator_.free_blocks()), " of ",
                                  WithCommas(allocator_.total_blocks()), " are free", uneven,
                                  ". Free sequences, or use a larger cp"),
                     {.reason = ErrorReason::kKvCapacity, .retriable = true});
  }
  return reason;
}

SequenceTable::Sequence& SequenceTable::Begin(const std::string& client_id,
                                              const std::string& sequence_id, Step& step) {
  const auto place = clients_[client_id].try_emplace(
      sequence_id,
      Sequence{.slot = free_slots_.back(), .lengths = LayerLengths(options_.limits.layers)});
  free_slots_.pop_back();
  ++held_;
  Sequence& sequence = place.first->second;
  step.new_slots.push_back(sequence.slot);
  return sequence;
}

PlannedStep& SequenceTable::StepFor(const SequenceSlice& slice,
                                    std::vector<PlannedStep>& steps) const {
  const LayerRange layers = LayersOf(slice, options_.limits);
  const int from_hidden = slice.hidden_states.empty() ? 0 : 1;
  const int hidden_of =
      slice.return_hidden_states.has_value() ? static_cast<int>(*slice.return_hidden_states) : -1;
  for (PlannedStep& planned : steps) {
    const Step& step = planned.step;
    if (step.layers == layers && step.from_hidden == from_hidden && step.hidden_of == hidden_of) {
      return planned;
    }
  }
  Step& step = steps.emplace_back().step;
  step.layers = layers;
  step.from_hidden = from_hidden;
  step.hidden_of = hidden_of;
  return steps.back();
}

void SequenceTable::AppendBlocks(const std::vector<BlockGrant>& grants, Sequence& sequence,
                                 Step& step) {
  for (const BlockGrant& grant : grants) {
    const bool replaces = grant.logical < static_cast<int64_t>(sequence.blocks.size());
    step.blocks.push_back({.slot = sequence.slot,
                           .block = static_cast<int32_t>(grant.logical),
                           .arena = grant.local,
                           .replaces = replaces ? 1 : 0});
    if (!replaces) {
      sequence.blocks.push_back(grant);
      continue;
    }
    FreeBlocks({std::exchange(sequence.blocks[grant.logical], grant)});
  }
}

void SequenceTable::FreeBlocks(const std::vector<BlockGrant>& blocks) {
  // Blocks that were granted are always known to the allocator.
  allocator_.Free(blocks).IgnoreError();
  if (!moving_.has_value()) return;
  for (const BlockGrant& block : blocks) {
    const auto [place, local] = PlaceOf(block);
    if (allocator_.holders(place, local) == 0) ForgetMove({place, local});
  }
}

void SequenceTable::AppendRows(const SequenceSlice& slice, Sequence& sequence, Step& step) const {
  const LayerRange layers = LayersOf(slice, options_.limits);
  const int count = PositionsOf(slice, options_.limits);
  for (int i = 0; i < count; ++i) {
    const int32_t token =
        slice.token_ids.empty() ? 0 : static_cast<int32_t>(slice.token_ids[static_cast<size_t>(i)]);
    step.rows.push_back({.token = token,
                         .position = static_cast<int32_t>(slice.first_position) + i,
                         .slot = sequence.slot});
    if (layers.begin == 0) sequence.tokens.push_back(token);
  }
  sequence.lengths.Set(layers, PositionAfter(slice));
  const int last_row = static_cast<int>(step.rows.size()) - 1;
  if (const auto output = OutputOf(slice, last_row)) step.outputs.push_back(*output);
}

absl::StatusOr<Forked> SequenceTable::Fork(const ForkOrder& order, Step& step) {
  const auto client = clients_.find(order.client_id);
  if (client == clients_.end() || !client->second.contains(order.sequence_id)) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("sequence ", Quoted(order.sequence_id),
                                  " is not held, so nothing begins with it"),
                     {.reason = ErrorReason::kUnknownSequence});
  }
  if (client->second.contains(order.new_sequence_id)) {
    return MakeError(absl::StatusCode::kAlreadyExists,
                     absl::StrCat("sequence ", Quoted(order.new_sequence_id), " is held already"),
                     {.reason = ErrorReason::kSequenceExists});
  }
  const Sequence& parent = client->second.find(order.sequence_id)->second;
  const int64_t most = parent.lengths.shortest();
  const int64_t tokens = order.tokens.value_or(most);
  if (tokens < 1 || tokens > most) {
    return MakeError(absl::StatusCode::kOutOfRange,
                     absl::StrCat("sequence ", Quoted(order.sequence_id), " has ", most,
                                  " tokens in all layers; ", tokens, " of them cannot be shared"),
                     {.reason = ErrorReason::kPositionMismatch});
  }
  MUSTER_RETURN_IF_ERROR(CheckSlots(1));
  step = Step();
  step.freed_slots.swap(freed_slots_);
  step.layers = {0, options_.limits.layers};
  const int64_t blocks = KvBlocksFor(tokens);
  Sequence& child = Begin(order.client_id, order.new_sequence_id, step);
  child.lengths = LayerLengths(options_.limits.layers, tokens);
  child.tokens.assign(parent.tokens.begin(), parent.tokens.begin() + tokens);
  child.blocks.assign(parent.blocks.begin(), parent.blocks.begin() + blocks);
  child.rebuildable = parent.rebuildable;
  child.touched = Clock::Real().Now();
  if (!child.rebuildable) ++not_rebuildable_;
  allocator_.Share(child.blocks).IgnoreError();
  step.forks.push_back(
      {.slot = child.slot, .parent = parent.slot, .blocks = static_cast<int32_t>(blocks)});
  return Forked{.tokens = tokens, .shared_blocks = blocks};
}

void SequenceTable::Release(const Sequence& sequence) {
  FreeBlocks(sequence.blocks);
  if (sequence.told) moving_->freed_slots.push_back(sequence.slot);
  free_slots_.push_back(sequence.slot);
  freed_slots_.push_back(sequence.slot);
  --held_;
  if (!sequence.rebuildable) --not_rebuildable_;
}

int SequenceTable::Free(const std::string& client_id,
                        const std::vector<std::string>& sequence_ids) {
  const auto client = clients_.find(client_id);
  if (client == clients_.end()) return 0;
  int freed = 0;
  for (const std::string& id : sequence_ids) {
    const auto found = client->second.find(id);
    if (found == client->second.end()) continue;
    Release(found->second);
    client->second.erase(found);
    ++freed;
  }
  if (client->second.empty()) clients_.erase(client);
  return freed;
}

int SequenceTable::FreeAll(const std::string& client_id) {
  const auto client = clients_.find(client_id);
  if (client == clients_.end()) return 0;
  for (const auto& [id, sequence] : client->second) Release(sequence);
  const int freed = static_cast<int>(client->second.size());
  clients_.erase(client);
  return freed;
}

Capacity SequenceTable::capacity() const {
  return {.total_blocks = allocator_.total_blocks(),
          .free_blocks = allocator_.free_blocks(),
          .max_prompt_tokens = free_slots_.empty()
                                   ? 0
                                   : std::min<int64_t>(allocator_.LargestAdmissible(),
                                                       options_.limits.max_positions),
          .sequences = held_,
          .max_sequences = options_.max_sequences,
          .not_rebuildable = not_rebuildable_};
}

}  // namespace muster
