#include "base/wire_takeover.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/wire_time.h"

namespace muster {
namespace {

// Counts beyond these are nobody's: what is computed from them must not overflow.
constexpr uint64_t kMostSequences = 1 << 20;
constexpr uint64_t kMostBlocks = uint64_t{1} << 40;
constexpr uint64_t kMostBytes = uint64_t{1} << 50;
constexpr int kMostIndexes = 1 << 20;
constexpr uint32_t kMostBlockTokens = 4096;

absl::Status Check(const char* field, uint64_t value, uint64_t most) {
  if (value <= most) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(field, " is ", value, "; it can be 0 to ", most),
                   {.reason = ErrorReason::kInvalidRequest});
}

absl::Status CheckRate(const char* field, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(field, " is ", value, "; it must be finite and not negative"),
                   {.reason = ErrorReason::kInvalidRequest});
}

}  // namespace

void ToWire(const Takeover& takeover, v1::ActivateResult* wire) {
  *wire->mutable_pause() = ToWire(takeover.pause);
  wire->set_kv_blocks_moved(takeover.kv_blocks_moved);
  wire->set_kv_blocks_kept(takeover.kv_blocks_kept);
  wire->set_kv_bytes_moved(takeover.kv_bytes_moved);
  wire->set_kv_bytes_in_pause(takeover.kv_bytes_in_pause);
  *wire->mutable_copy_time() = ToWire(takeover.copy_time);
  wire->set_copy_bytes_per_second(takeover.copy_bytes_per_second);
  wire->set_sequences(static_cast<uint32_t>(takeover.sequences));
  wire->set_tokens_rebuilt(takeover.tokens_rebuilt);
  wire->set_sequences_dropped(static_cast<uint32_t>(takeover.sequences_dropped));
}

void ToWire(const SequenceName& name, v1::SequenceName* wire) {
  wire->set_client_id(name.client_id);
  wire->set_sequence_id(name.sequence_id);
}

void ToWire(const CacheSummary& summary, v1::DescribeCacheResponse* wire) {
  for (const uint64_t blocks : summary.blocks_by_index) wire->add_blocks_by_index(blocks);
  wire->set_blocks_per_rank(summary.blocks_per_rank);
  wire->set_block_tokens(static_cast<uint32_t>(summary.block_tokens));
  wire->set_block_bytes(summary.block_bytes);
  wire->set_sequences(static_cast<uint32_t>(summary.sequences));
  wire->set_tokens(summary.tokens);
  const size_t names = std::min(summary.not_rebuildable.size(), CacheSummary::kMaxNames);
  for (size_t i = 0; i < names; ++i)
    ToWire(summary.not_rebuildable[i], wire->add_not_rebuildable());
  wire->set_not_rebuildable_count(static_cast<uint32_t>(summary.not_rebuildable_count));
  wire->set_active_sequences(static_cast<uint32_t>(summary.active_sequences));
  wire->set_copy_bytes_per_second(summary.copy_bytes_per_second);
  wire->set_prefill_tokens_per_second(summary.prefill_tokens_per_second);
  *wire->mutable_round_trip() = ToWire(summary.round_trip);
}

absl::StatusOr<Takeover> FromWire(const v1::ActivateResult& wire) {
  MUSTER_RETURN_IF_ERROR(Check("kv_blocks_moved", wire.kv_blocks_moved(), kMostBlocks));
  MUSTER_RETURN_IF_ERROR(Check("kv_blocks_kept", wire.kv_blocks_kept(), kMostBlocks));
  MUSTER_RETURN_IF_ERROR(Check("kv_bytes_moved", wire.kv_bytes_moved(), kMostBytes));
  MUSTER_RETURN_IF_ERROR(Check("kv_bytes_in_pause", wire.kv_bytes_in_pause(), kMostBytes));
  MUSTER_RETURN_IF_ERROR(Check("sequences", wire.sequences(), kMostSequences));
  MUSTER_RETURN_IF_ERROR(Check("tokens_rebuilt", wire.tokens_rebuilt(), kMostBlocks));
  MUSTER_RETURN_IF_ERROR(Check("sequences_dropped", wire.sequences_dropped(), kMostSequences));
  MUSTER_RETURN_IF_ERROR(CheckRate("copy_bytes_per_second", wire.copy_bytes_per_second()));
  return Takeover{.pause = FromWire(wire.pause()),
                  .kv_blocks_moved = wire.kv_blocks_moved(),
                  .kv_blocks_kept = wire.kv_blocks_kept(),
                  .kv_bytes_moved = wire.kv_bytes_moved(),
                  .kv_bytes_in_pause = wire.kv_bytes_in_pause(),
                  .copy_time = FromWire(wire.copy_time()),
                  .copy_bytes_per_second = wire.copy_bytes_per_second(),
                  .sequences = static_cast<int>(wire.sequences()),
                  .tokens_rebuilt = wire.tokens_rebuilt(),
                  .sequences_dropped = static_cast<int>(wire.sequences_dropped())};
}

absl::StatusOr<CacheSummary> FromWire(const v1::DescribeCacheResponse& wire) {
  MUSTER_RETURN_IF_ERROR(Check("blocks_by_index (length)",
                               static_cast<uint64_t>(wire.blocks_by_index_size()), kMostIndexes));
  MUSTER_RETURN_IF_ERROR(Check("blocks_per_rank", wire.blocks_per_rank(), kMostBlocks));
  MUSTER_RETURN_IF_ERROR(Check("block_tokens", wire.block_tokens(), kMostBlockTokens));
  MUSTER_RETURN_IF_ERROR(Check("block_bytes", wire.block_bytes(), kMostBytes));
  MUSTER_RETURN_IF_ERROR(Check("sequences", wire.sequences(), kMostSequences));
  MUSTER_RETURN_IF_ERROR(Check("tokens", wire.tokens(), kMostBlocks));
  MUSTER_RETURN_IF_ERROR(
      Check("not_rebuildable_count", wire.not_rebuildable_count(), kMostSequences));
  MUSTER_RETURN_IF_ERROR(Check("active_sequences", wire.active_sequences(), kMostSequences));
  MUSTER_RETURN_IF_ERROR(CheckRate("copy_bytes_per_second", wire.copy_bytes_per_second()));
  MUSTER_RETURN_IF_ERROR(CheckRate("prefill_tokens_per_second", wire.prefill_tokens_per_second()));
  CacheSummary summary{
      .blocks_by_index = {wire.blocks_by_index().begin(), wire.blocks_by_index().end()},
      .blocks_per_rank = wire.blocks_per_rank(),
      .block_tokens = static_cast<int>(wire.block_tokens()),
      .block_bytes = wire.block_bytes(),
      .sequences = static_cast<int>(wire.sequences()),
      .tokens = wire.tokens(),
      .not_rebuildable_count = static_cast<int>(wire.not_rebuildable_count()),
      .active_sequences = static_cast<int>(wire.active_sequences()),
      .copy_bytes_per_second = wire.copy_bytes_per_second(),
      .prefill_tokens_per_second = wire.prefill_tokens_per_second(),
      .round_trip = FromWire(wire.round_trip())};
  for (const uint64_t blocks : summary.blocks_by_index) {
    MUSTER_RETURN_IF_ERROR(Check("blocks_by_index", blocks, kMostBlocks));
  }
  for (const v1::SequenceName& name : wire.not_rebuildable()) {
    if (summary.not_rebuildable.size() == CacheSummary::kMaxNames) break;
    summary.not_rebuildable.push_back({name.client_id(), name.sequence_id()});
  }
  return summary;
}

}  // namespace muster
