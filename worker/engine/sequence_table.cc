#include "worker/engine/sequence_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

// 1,456.
std::string Thousands(int64_t value) {
  std::string digits = absl::StrCat(value);
  for (int i = static_cast<int>(digits.size()) - 3; i > (value < 0 ? 1 : 0); i -= 3) {
    digits.insert(static_cast<size_t>(i), 1, ',');
  }
  return digits;
}

}  // namespace

SequenceTable::SequenceTable(const Options& options)
    : options_(options), allocator_(options.cp, options.blocks_per_rank) {
  for (int slot = options.max_sequences - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

absl::Status SequenceTable::Append(const ForwardBatch& batch, Step& step) {
  MUSTER_RETURN_IF_ERROR(CheckPositions(batch));
  MUSTER_RETURN_IF_ERROR(CheckSlots(batch));
  MUSTER_ASSIGN_OR_RETURN(const auto granted, AllocateBlocks(batch));
  // Nothing can fail from here on.
  step = Step();
  step.freed_slots.swap(freed_slots_);
  for (size_t i = 0; i < batch.slices.size(); ++i) {
    const SequenceSlice& slice = batch.slices[i];
    Sequence& sequence = FindOrBegin({batch.client_id, slice.sequence_id}, step);
    for (const BlockGrant& grant : granted[i]) {
      sequence.blocks.push_back(grant);
      step.blocks.push_back({.slot = sequence.slot,
                             .block = static_cast<int32_t>(grant.logical),
                             .arena = grant.local});
    }
    for (const uint32_t token : slice.token_ids) {
      step.rows.push_back({.token = static_cast<int32_t>(token),
                           .position = static_cast<int32_t>(sequence.tokens.size()),
                           .slot = sequence.slot});
      sequence.tokens.push_back(static_cast<int32_t>(token));
    }
    const int last_row = static_cast<int>(step.rows.size()) - 1;
    if (const auto output = OutputOf(slice, last_row)) step.outputs.push_back(*output);
  }
  step.bucket = BucketOf(static_cast<int>(step.rows.size()));
  step.output_bucket = step.outputs.empty() ? 0 : BucketOf(static_cast<int>(step.outputs.size()));
  return absl::OkStatus();
}

int64_t SequenceTable::LengthOf(const ForwardBatch& batch, const SequenceSlice& slice) const {
  const auto found = sequences_.find({batch.client_id, slice.sequence_id});
  return found == sequences_.end() ? 0 : static_cast<int64_t>(found->second.tokens.size());
}

absl::Status SequenceTable::CheckPositions(const ForwardBatch& batch) const {
  for (const SequenceSlice& slice : batch.slices) {
    const int64_t length = LengthOf(batch, slice);
    if (length == slice.first_position) continue;
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("sequence ", Quoted(slice.sequence_id), " has ", length,
                     " tokens; the slice begins at position ", slice.first_position),
        {.reason = length == 0 ? ErrorReason::kUnknownSequence : ErrorReason::kPositionMismatch});
  }
  return absl::OkStatus();
}

absl::Status SequenceTable::CheckSlots(const ForwardBatch& batch) const {
  const auto fresh = static_cast<size_t>(
      std::count_if(batch.slices.begin(), batch.slices.end(),
                    [](const SequenceSlice& slice) { return slice.first_position == 0; }));
  if (fresh <= free_slots_.size()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat("the step begins ", fresh, " sequences; ", sequences_.size(),
                   " are held, and at most ", options_.max_sequences, " can be. Free sequences"),
      {.reason = ErrorReason::kKvCapacity, .retriable = true});
}

absl::StatusOr<std::vector<std::vector<BlockGrant>>> SequenceTable::AllocateBlocks(
    const ForwardBatch& batch) {
  std::vector<KvGrowth> growths;
  for (const SequenceSlice& slice : batch.slices) {
    const int64_t length = LengthOf(batch, slice);
    growths.push_back(
        {.from = length, .to = length + static_cast<int64_t>(slice.token_ids.size())});
  }
  auto granted = allocator_.Allocate(growths);
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
    for (int64_t block = begin; block < end; ++block) {
      const int rank = static_cast<int>(block % options_.cp);
      fits &= ++needed[rank] <= allocator_.free_blocks(rank);
    }
    if (fits) {
      before += end - begin;
      continue;
    }
    const std::string others =
        before == 0 ? "" : absl::StrCat(" after ", Thousands(before), " for others of the step");
    // Blocks are dealt to the cp ranks in turn, so one of them can be full before the rest.
    const std::string uneven = before + end - begin > allocator_.free_blocks()
                                   ? ""
                                   : ", but not where this sequence's next ones must lie";
    return MakeError(absl::StatusCode::kResourceExhausted,
                     absl::StrCat("sequence ", Quoted(batch.slices[i].sequence_id), " would need ",
                                  Thousands(end - begin), " KV blocks", others, "; ",
                                  Thousands(allocator_.free_blocks()), " of ",
                                  Thousands(allocator_.total_blocks()), " are free", uneven,
                                  ". Free sequences, or use a larger cp"),
                     {.reason = ErrorReason::kKvCapacity, .retriable = true});
  }
  return reason;
}

SequenceTable::Sequence& SequenceTable::FindOrBegin(const Key& key, Step& step) {
  const auto [place, begins] = sequences_.try_emplace(key);
  if (begins) {
    place->second.slot = free_slots_.back();
    free_slots_.pop_back();
    step.new_slots.push_back(place->second.slot);
  }
  return place->second;
}

int SequenceTable::Free(const std::string& client_id,
                        const std::vector<std::string>& sequence_ids) {
  int freed = 0;
  for (const std::string& id : sequence_ids) {
    const auto found = sequences_.find({client_id, id});
    if (found == sequences_.end()) continue;
    // Blocks that Append got are always known to the allocator.
    allocator_.Free(found->second.blocks).IgnoreError();
    free_slots_.push_back(found->second.slot);
    freed_slots_.push_back(found->second.slot);
    sequences_.erase(found);
    ++freed;
  }
  return freed;
}

Capacity SequenceTable::capacity() const {
  return {.total_blocks = allocator_.total_blocks(),
          .free_blocks = allocator_.free_blocks(),
          .max_prompt_tokens =
              free_slots_.empty()
                  ? 0
                  : std::min<int64_t>(allocator_.LargestAdmissible(), options_.max_positions),
          .sequences = static_cast<int>(sequences_.size())};
}

}  // namespace muster
