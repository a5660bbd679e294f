#include "worker/cache/kv_cache.h"

#include <algorithm>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace muster {

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(const Options& options, Device& device,
                                                         Ledger& ledger) {
  if (options.max_sequences < 1 || options.max_local_blocks < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a KV cache needs sequences and blocks, not ",
                                                   options.max_sequences, " and ",
                                                   options.max_local_blocks));
  }
  auto cache = absl::WrapUnique(new KvCache(options, device, ledger));
  const int64_t entries = int64_t{options.max_sequences} * options.max_local_blocks;
  MUSTER_ASSIGN_OR_RETURN(cache->tables_, device.Allocate(entries * sizeof(int32_t), "kv", ledger));
  MUSTER_ASSIGN_OR_RETURN(cache->descriptor_, device.Allocate(sizeof(KvDescriptor), "kv", ledger));
  std::fill_n(cache->block_tables(), entries, -1);
  *cache->descriptor() = {.base = nullptr,
                          .num_blocks = 0,
                          .block_tables = cache->block_tables(),
                          .max_local_blocks = options.max_local_blocks};
  return cache;
}

absl::Status KvCache::AllocateArena(int64_t blocks) {
  if (descriptor()->base != nullptr) {
    return absl::FailedPreconditionError("the KV arena exists already");
  }
  int64_t bytes = 0;
  if (blocks < 1 || __builtin_mul_overflow(blocks, KvBlockBytes(options_.layout), &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("a KV arena of ", blocks, " blocks"));
  }
  // A model without layers has blocks of no bytes, and an arena all the same.
  const auto size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  MUSTER_ASSIGN_OR_RETURN(arena_, device_.Allocate(size, "kv", ledger_));
  descriptor()->num_blocks = blocks;
  descriptor()->base = arena_.data();
  return absl::OkStatus();
}

absl::Status KvCache::CheckSequence(int sequence) const {
  if (sequence >= 0 && sequence < options_.max_sequences) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat("sequence slot ", sequence, " of ", options_.max_sequences));
}

absl::Status KvCache::SetBlock(int sequence, int local_index, int block) {
  MUSTER_RETURN_IF_ERROR(CheckSequence(sequence));
  if (local_index < 0 || local_index >= options_.max_local_blocks) {
    return absl::OutOfRangeError(absl::StrCat("KV block ", local_index,
                                              " of a sequence; a rank holds at most ",
                                              options_.max_local_blocks));
  }
  if (block < 0 || block >= blocks()) {
    return absl::OutOfRangeError(absl::StrCat("KV block ", block, " of an arena of ", blocks()));
  }
  Row(sequence)[local_index] = block;
  return absl::OkStatus();
}

absl::Status KvCache::ClearSequence(int sequence) {
  MUSTER_RETURN_IF_ERROR(CheckSequence(sequence));
  std::fill_n(Row(sequence), options_.max_local_blocks, -1);
  return absl::OkStatus();
}

}  // namespace muster
