#include "worker/cache/kv_cache.h"

#include <algorithm>
#include <tuple>
#include <utility>

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
  const size_t bytes = entries * sizeof(int32_t);
  MUSTER_ASSIGN_OR_RETURN(cache->host_tables_, device.AllocateHost(bytes, "kv", ledger));
  MUSTER_ASSIGN_OR_RETURN(cache->tables_, device.Allocate(bytes, "kv", ledger));
  MUSTER_ASSIGN_OR_RETURN(cache->host_descriptor_,
                          device.AllocateHost(sizeof(KvDescriptor), "kv", ledger));
  MUSTER_ASSIGN_OR_RETURN(cache->descriptor_, device.Allocate(sizeof(KvDescriptor), "kv", ledger));
  std::fill_n(cache->host_tables_.as<int32_t>(), entries, -1);
  *cache->host_descriptor_.as<KvDescriptor>() = {.base = nullptr,
                                                 .num_blocks = 0,
                                                 .block_tables = cache->tables_.as<int32_t>(),
                                                 .max_local_blocks = options.max_local_blocks};
  cache->changed_.assign(options.max_sequences, {.begin = 0, .end = options.max_local_blocks});
  for (int slot = 0; slot < options.max_sequences; ++slot) cache->changed_slots_.push_back(slot);
  return cache;
}

KvCache::~KvCache() {
  if (arena_ != nullptr) ledger_.Discharge("kv", arena_->bytes());
}

absl::Status KvCache::Attach(std::shared_ptr<KvArena> arena) {
  if (arena_ != nullptr) return absl::FailedPreconditionError("the KV arena exists already");
  const KvLayout& other = arena->layout();
  const KvLayout& own = options_.layout;
  if (std::tie(own.layers, own.kv_heads, own.block_size, own.head_dim, own.dtype) !=
      std::tie(other.layers, other.kv_heads, other.block_size, other.head_dim, other.dtype)) {
    return absl::InvalidArgumentError("a KV arena of another layout");
  }
  arena_ = std::move(arena);
  ledger_.Charge("kv", arena_->bytes());
  holders_.resize(static_cast<size_t>(arena_->blocks()), 0);
  auto* const descriptor = host_descriptor_.as<KvDescriptor>();
  descriptor->num_blocks = arena_->blocks();
  descriptor->base = arena_->data();
  descriptor_changed_ = true;
  return absl::OkStatus();
}

absl::Status KvCache::CheckSequence(int sequence) const {
  if (sequence >= 0 && sequence < options_.max_sequences) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat("sequence slot ", sequence, " of ", options_.max_sequences));
}

absl::Status KvCache::CheckEntry(int sequence, int local_index) const {
  MUSTER_RETURN_IF_ERROR(CheckSequence(sequence));
  if (local_index >= 0 && local_index < options_.max_local_blocks) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("KV block ", local_index,
                                            " of a sequence; a rank holds at most ",
                                            options_.max_local_blocks));
}

void KvCache::Write(int sequence, int local_index, int32_t block) {
  int32_t& entry = Row(sequence)[local_index];
  if (entry == block) return;
  if (entry >= 0 && --holders_[entry] == 0) --used_blocks_;
  if (block >= 0 && ++holders_[block] == 1) ++used_blocks_;
  entry = block;
  Changed& changed = changed_[sequence];
  if (changed.begin == changed.end) {
    changed = {.begin = local_index, .end = local_index};
    changed_slots_.push_back(sequence);
  }
  changed.begin = std::min(changed.begin, local_index);
  changed.end = std::max(changed.end, local_index + 1);
}

absl::Status KvCache::Flush(Stream& stream) {
  if (std::exchange(descriptor_changed_, false)) {
    MUSTER_RETURN_IF_ERROR(
        device_.Copy(stream, descriptor_.data(), host_descriptor_.data(), sizeof(KvDescriptor)));
  }
  for (const int slot : changed_slots_) {
    const Changed changed = std::exchange(changed_[slot], Changed());
    const int64_t first = RowOffset(slot) + changed.begin;
    MUSTER_RETURN_IF_ERROR(device_.Copy(stream, tables_.as<int32_t>() + first,
                                        host_tables_.as<int32_t>() + first,
                                        sizeof(int32_t) * (changed.end - changed.begin)));
  }
  changed_slots_.clear();
  return absl::OkStatus();
}

absl::Status KvCache::SetBlock(int sequence, int local_index, int block) {
  MUSTER_RETURN_IF_ERROR(CheckEntry(sequence, local_index));
  if (block < 0 || block >= blocks()) {
    return absl::OutOfRangeError(absl::StrCat("KV block ", block, " of an arena of ", blocks()));
  }
  Write(sequence, local_index, block);
  return absl::OkStatus();
}

absl::Status KvCache::ReplaceBlock(Stream& stream, int sequence, int local_index, int block) {
  MUSTER_RETURN_IF_ERROR(CheckEntry(sequence, local_index));
  const int32_t before = Row(sequence)[local_index];
  if (before < 0) {
    return absl::OutOfRangeError(
        absl::StrCat("there is no KV block ", local_index, " of slot ", sequence, " to replace"));
  }
  MUSTER_RETURN_IF_ERROR(SetBlock(sequence, local_index, block));
  const int64_t bytes = KvBlockBytes(options_.layout);
  return device_.Copy(stream, arena_->block(block), arena_->block(before),
                      static_cast<size_t>(bytes));
}

absl::Status KvCache::ShareBlocks(int sequence, int parent, int local_blocks) {
  MUSTER_RETURN_IF_ERROR(CheckSequence(parent));
  MUSTER_RETURN_IF_ERROR(ClearSequence(sequence));
  if (local_blocks < 0 || local_blocks > options_.max_local_blocks || sequence == parent) {
    return absl::OutOfRangeError(absl::StrCat("slot ", sequence, " cannot share ", local_blocks,
                                              " KV blocks of slot ", parent));
  }
  for (int i = 0; i < local_blocks; ++i) Write(sequence, i, Row(parent)[i]);
  return absl::OkStatus();
}

absl::Status KvCache::ClearSequence(int sequence) {
  MUSTER_RETURN_IF_ERROR(CheckSequence(sequence));
  for (int i = 0; i < options_.max_local_blocks; ++i) Write(sequence, i, -1);
  return absl::OkStatus();
}

}  // namespace muster
