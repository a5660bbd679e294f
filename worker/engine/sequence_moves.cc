// SequenceTable: bringing the sequences to another epoch.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/text.h"
#include "worker/engine/sequence_table.h"

namespace muster {
namespace {

// A sequence that was not written for so long is taken for idle: its last block, which is not full,
// is worth copying before the pause.
constexpr absl::Duration kIdle = absl::Milliseconds(200);

bool Names(const std::vector<SequenceName>& names, const SequenceName& name) {
  const SequenceName all{.client_id = "*", .sequence_id = "*"};
  return std::any_of(names.begin(), names.end(),
                     [&](const SequenceName& it) { return it == name || it == all; });
}

}  // namespace

template <typename Fn>
void SequenceTable::ForEachSequence(Fn fn) {
  for (auto& [client, sequences] : clients_) {
    for (auto& [id, sequence] : sequences) fn(client, id, sequence);
  }
}

absl::Status SequenceTable::BeginMoves(const NextDeal& next, const std::vector<SequenceName>& drop,
                                       std::function<bool()> await_copies) {
  MUSTER_RETURN_IF_ERROR(CheckRebuildable(next, drop));
  drop_ = drop;
  moving_ =
      Moving{.next = next, .await_copies = std::move(await_copies), .copied_stamp = last_stamp_};
  moving_->next.replaced.resize(static_cast<size_t>(std::max(next.cp, options_.cp)), 0);
  dropped_ = 0;
  if (next.keeps_kv) allocator_.GrowPlaces(std::max(next.cp, options_.cp));
  return absl::OkStatus();
}

absl::Status SequenceTable::CheckRebuildable(const NextDeal& next,
                                             const std::vector<SequenceName>& drop) {
  if (next.keeps_kv) return absl::OkStatus();
  std::vector<std::string> lost;
  std::vector<int64_t> blocks(static_cast<size_t>(next.cp), 0);
  ForEachSequence([&](const std::string& client, const std::string& id, const Sequence& sequence) {
    if (Names(drop, {client, id})) return;
    if (!sequence.rebuildable) lost.push_back(absl::StrCat(client, "/", id));
    for (int64_t b = 0; b < KvBlocksFor(sequence.lengths.shortest()); ++b) ++blocks[b % next.cp];
  });
  if (!lost.empty()) {
    const size_t count = lost.size();
    lost.resize(std::min<size_t>(count, 8));
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat(Counted(static_cast<int64_t>(count), "sequence"),
                                  " cannot be computed again, having been fed with hidden states: ",
                                  absl::StrJoin(lost, ", "), count > 8 ? ", .." : "",
                                  ". Free them, or name what may be dropped"),
                     {.reason = ErrorReason::kPlanRefused});
  }
  const int64_t most = *std::max_element(blocks.begin(), blocks.end());
  if (most <= next.blocks_per_rank) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted,
                   absl::StrCat("a rank would hold ", WithCommas(most),
                                " KV blocks of the sequences; it has room for ",
                                WithCommas(next.blocks_per_rank), ". Free sequences"),
                   {.reason = ErrorReason::kKvCapacity});
}

absl::StatusOr<bool> SequenceTable::PlanMoves(MoveScope scope, int max_moves, Step& step) {
  step = Step();
  step.kind = StepKind::kPull;
  if (!moving_->next.keeps_kv) {
    // Requests ran since BeginMoves.
    if (scope == MoveScope::kAll) MUSTER_RETURN_IF_ERROR(CheckRebuildable(moving_->next, drop_));
    return false;
  }
  if (scope == MoveScope::kSettled && !moving_->settled) return false;
  moving_->copied_stamp = last_stamp_;
  FreeForgotten();
  step.freed_slots.swap(moving_->freed_slots);
  const absl::Time idle_since = Clock::Real().Now() - kIdle;
  for (auto& [client, sequences] : clients_) {
    for (auto& [id, sequence] : sequences) {
      const bool whole = scope == MoveScope::kAll || sequence.touched < idle_since;
      const int64_t end = whole ? static_cast<int64_t>(sequence.blocks.size())
                                : sequence.lengths.shortest() / kKvBlockTokens;
      const absl::StatusOr<bool> fits = HandOver(sequence, end, max_moves, step);
      if (fits.ok() && !*fits) return true;
      if (fits.ok()) continue;
      if (scope == MoveScope::kAll) return fits.status();
      // There may be room when the pause comes; what is asked for meanwhile goes first.
      moving_->settled = false;
      return false;
    }
  }
  return false;
}

absl::StatusOr<bool> SequenceTable::HandOver(Sequence& sequence, int64_t end, int max_moves,
                                             Step& step) {
  while (sequence.handed < end) {
    const bool full = static_cast<int>(step.blocks.size()) == Step::kMaxMoves ||
                      static_cast<int>(step.moves.size()) >= std::min(max_moves, Step::kMaxMoves);
    if (full) return false;
    const BlockGrant& block = sequence.blocks[static_cast<size_t>(sequence.handed)];
    MUSTER_ASSIGN_OR_RETURN(const int32_t arena, NextPlaceOf(block, step));
    if (sequence.handed == 0) step.new_slots.push_back(sequence.slot);
    sequence.told = true;
    step.blocks.push_back(
        {.slot = sequence.slot, .block = static_cast<int32_t>(block.logical), .arena = arena});
    ++sequence.handed;
  }
  return true;
}

absl::StatusOr<int32_t> SequenceTable::NextPlaceOf(const BlockGrant& block, Step& step) {
  const auto [from, local] = PlaceOf(block);
  const int to = static_cast<int>(block.logical % moving_->next.cp);
  if (from == to && moving_->next.replaced[static_cast<size_t>(to)] == 0) return local;
  const auto known = moving_->moves.find({from, local});
  if (known != moving_->moves.end()) return known->second.to_arena;
  int32_t to_local = local;
  if (from != to) {
    MUSTER_ASSIGN_OR_RETURN(to_local, allocator_.Reserve(to));
  }
  const StepMove move{
      .from = from, .from_arena = local, .to = to, .to_arena = to_local, .stamp = ++last_stamp_};
  moving_->moves[{from, local}] = move;
  step.moves.push_back(move);
  return to_local;
}

void SequenceTable::ForgetMove(const BlockPlace& place) {
  const auto found = moving_->moves.find(place);
  if (found == moving_->moves.end()) return;
  if (found->second.stamp > moving_->copied_stamp) AwaitCopies();
  moving_->forgotten.push_back(found->second);
  moving_->moves.erase(found);
}

bool SequenceTable::AwaitCopies() {
  if (!moving_->await_copies()) return false;
  moving_->copied_stamp = last_stamp_;
  return true;
}

void SequenceTable::FreeForgotten() {
  for (const StepMove& move : std::exchange(moving_->forgotten, {})) {
    if (move.from != move.to) allocator_.Unreserve(move.to, move.to_arena);
  }
}

void SequenceTable::NoteWrite(Sequence& sequence, int64_t first, bool replaces) {
  sequence.touched = Clock::Real().Now();
  if (!moving_.has_value()) return;
  auto written = static_cast<size_t>(first / kKvBlockTokens);
  sequence.handed = std::min(sequence.handed, static_cast<int64_t>(written));
  // A block that it shares stays as it is for the others. Any other may have been planned to move,
  // if not for this sequence then for one that shared it.
  if (replaces) ++written;
  for (size_t b = written; b < sequence.blocks.size(); ++b) ForgetMove(PlaceOf(sequence.blocks[b]));
}

void SequenceTable::GiveUpReservations() {
  moving_->settled = false;
  while (!moving_->moves.empty()) ForgetMove(moving_->moves.begin()->first);
  ForEachSequence([this](const std::string&, const std::string&, Sequence& sequence) {
    sequence.handed = 0;
    if (std::exchange(sequence.told, false)) moving_->freed_slots.push_back(sequence.slot);
  });
  if (AwaitCopies()) FreeForgotten();
}

absl::Status SequenceTable::Commit() {
  FreeForgotten();
  blocks_moved_ = static_cast<int64_t>(moving_->moves.size());
  if (!moving_->next.keeps_kv) {
    CommitRebuild();
  } else {
    std::vector<BlockMove> moves;
    for (const auto& [place, move] : moving_->moves) {
      if (move.from == move.to) continue;
      moves.push_back({move.from, move.from_arena, move.to, move.to_arena});
    }
    MUSTER_RETURN_IF_ERROR(allocator_.Redeal(moving_->next.cp, moves));
    CommitKept();
  }
  options_.cp = moving_->next.cp;
  // Tables of the new epoch know the sequences that there are, and no others.
  freed_slots_.clear();
  moving_.reset();
  return absl::OkStatus();
}

void SequenceTable::CommitKept() {
  ForEachSequence([this](const std::string&, const std::string&, Sequence& sequence) {
    for (BlockGrant& block : sequence.blocks) {
      const auto moved = moving_->moves.find(PlaceOf(block));
      if (moved != moving_->moves.end()) block.local = moved->second.to_arena;
    }
    sequence.handed = 0;
    sequence.told = false;
  });
}

void SequenceTable::CommitRebuild() {
  std::vector<SequenceName> lost;
  ForEachSequence([&](const std::string& client, const std::string& id, const Sequence& sequence) {
    if (Names(drop_, {client, id})) lost.push_back({client, id});
  });
  for (const SequenceName& name : lost) dropped_ += Free(name.client_id, {name.sequence_id});
  blocks_per_rank_ = moving_->next.blocks_per_rank;
  allocator_ = KvBlockAllocator(moving_->next.cp, blocks_per_rank_);
  tokens_to_rebuild_ = 0;
  ForEachSequence([this](const std::string&, const std::string&, Sequence& sequence) {
    const int64_t length = sequence.lengths.shortest();
    sequence.tokens.resize(static_cast<size_t>(length));
    sequence.history = std::move(sequence.tokens);
    sequence.tokens.clear();
    sequence.blocks.clear();
    sequence.handed = 0;
    sequence.lengths = LayerLengths(options_.limits.layers);
    tokens_to_rebuild_ += length;
  });
}

void SequenceTable::Rollback() {
  if (!moving_.has_value()) return;
  GiveUpReservations();
  FreeForgotten();
  // Blocks are dealt as before; what was grown holds nothing, so it can be dropped.
  if (moving_->next.keeps_kv) allocator_.Redeal(options_.cp, {}).IgnoreError();
  moving_.reset();
}

std::optional<ForwardBatch> SequenceTable::NextRebuild(int max_tokens) {
  for (auto& [client, sequences] : clients_) {
    for (auto& [id, sequence] : sequences) {
      if (sequence.history.empty()) continue;
      const size_t done = sequence.tokens.size();
      const size_t count =
          std::min(sequence.history.size() - done, static_cast<size_t>(max_tokens));
      if (count == 0) {
        sequence.history = {};
        continue;
      }
      const auto first = sequence.history.begin() + static_cast<int64_t>(done);
      tokens_to_rebuild_ -= static_cast<int64_t>(count);
      return ForwardBatch{.client_id = client,
                          .slices = {{.sequence_id = id,
                                      .token_ids = {first, first + static_cast<int64_t>(count)},
                                      .first_position = static_cast<uint32_t>(done)}}};
    }
  }
  return std::nullopt;
}

CacheSummary SequenceTable::Summary() const {
  CacheSummary summary{.blocks_per_rank = static_cast<uint64_t>(blocks_per_rank_),
                       .block_tokens = kKvBlockTokens,
                       .sequences = held_,
                       .not_rebuildable_count = not_rebuildable_};
  std::set<BlockPlace> seen;
  const absl::Time idle_since = Clock::Real().Now() - kIdle;
  for (const auto& [client, sequences] : clients_) {
    for (const auto& [id, sequence] : sequences) {
      for (const BlockGrant& block : sequence.blocks) {
        if (!seen.insert(PlaceOf(block)).second) continue;
        const auto index = static_cast<size_t>(block.logical);
        if (summary.blocks_by_index.size() <= index) summary.blocks_by_index.resize(index + 1);
        ++summary.blocks_by_index[index];
      }
      summary.tokens += static_cast<uint64_t>(sequence.lengths.shortest());
      if (sequence.touched >= idle_since) ++summary.active_sequences;
      const bool named = summary.not_rebuildable.size() < CacheSummary::kMaxNames;
      if (!sequence.rebuildable && named) summary.not_rebuildable.push_back({client, id});
    }
  }
  return summary;
}

}  // namespace muster
