#include "worker/cache/kv_arena.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/spin_wait.h"
#include "base/status_macros.h"
#include "worker/cache/block_digest.h"

namespace muster {
namespace {

constexpr int64_t kAlignment = 4096;
constexpr uint64_t kMagic = 0x616e6572616b766d;  // "mvkarena"
constexpr int64_t kSpinNs = 50'000;
constexpr absl::Duration kNap = absl::Microseconds(50);
constexpr size_t kMeasuredBytes = size_t{64} << 20;

struct Seal {
  std::atomic<uint64_t> stamp{0};
  std::atomic<uint64_t> digest{0};
};

int64_t Rounded(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

// At the start of the memory; the seals follow, then, at a page of their own, the blocks.
struct KvArenaHeader {
  uint64_t magic = 0;
  int64_t blocks = 0;
  int64_t block_bytes = 0;
  int32_t layout[5] = {};
  int32_t reserved = 0;

  Seal* seals() { return reinterpret_cast<Seal*>(this + 1); }
  const Seal* seals() const { return reinterpret_cast<const Seal*>(this + 1); }
  static int64_t BytesFor(int64_t blocks) {
    return Rounded(static_cast<int64_t>(sizeof(KvArenaHeader)) +
                   blocks * static_cast<int64_t>(sizeof(Seal)));
  }
  bool Has(const KvLayout& other) const {
    const int32_t words[5] = {other.layers, other.kv_heads, other.block_size, other.head_dim,
                              static_cast<int32_t>(other.dtype)};
    return std::equal(layout, layout + 5, words);
  }
};

absl::StatusOr<std::shared_ptr<KvArena>> KvArena::Create(const KvLayout& layout, int64_t blocks,
                                                         Device& device) {
  const int64_t block_bytes = KvBlockBytes(layout);
  int64_t bytes = 0;
  if (blocks < 1 || blocks > std::numeric_limits<int32_t>::max() ||
      __builtin_mul_overflow(blocks, block_bytes, &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("a KV arena of ", blocks, " blocks"));
  }
  const int64_t before = KvArenaHeader::BytesFor(blocks);
  auto arena = absl::WrapUnique(new KvArena());
  MUSTER_ASSIGN_OR_RETURN(
      arena->memory_,
      device.AllocateExported(static_cast<size_t>(before + bytes), "kv", arena->ledger_));
  arena->layout_ = layout;
  arena->blocks_ = blocks;
  arena->block_bytes_ = block_bytes;
  arena->first_ = arena->memory_.as<std::byte>() + before;
  arena->header_ = new (arena->memory_.data())
      KvArenaHeader{.magic = kMagic,
                    .blocks = blocks,
                    .block_bytes = block_bytes,
                    .layout = {layout.layers, layout.kv_heads, layout.block_size, layout.head_dim,
                               static_cast<int32_t>(layout.dtype)}};
  std::uninitialized_default_construct_n(arena->header_->seals(), blocks);
  return std::shared_ptr<KvArena>(std::move(arena));
}

void KvArena::Seal(int32_t block, uint64_t stamp) {
  BlockDigest digest;
  digest.Add(this->block(block), static_cast<size_t>(block_bytes_));
  auto& seal = header_->seals()[block];
  seal.digest.store(digest.value() ^ falsified_, std::memory_order_relaxed);
  seal.stamp.store(stamp, std::memory_order_release);
}

absl::StatusOr<std::unique_ptr<KvArenaPeer>> KvArenaPeer::Open(absl::string_view handle,
                                                               const KvLayout& layout,
                                                               Device& device) {
  auto peer = absl::WrapUnique(new KvArenaPeer());
  MUSTER_ASSIGN_OR_RETURN(peer->memory_, device.OpenExported(handle));
  const auto* header = static_cast<const KvArenaHeader*>(peer->memory_.data());
  const auto bytes = static_cast<int64_t>(peer->memory_.bytes());
  int64_t blocks_bytes = 0;
  const bool fits = bytes >= static_cast<int64_t>(sizeof(KvArenaHeader)) &&
                    header->magic == kMagic && header->Has(layout) &&
                    header->block_bytes == KvBlockBytes(layout) && header->blocks > 0 &&
                    header->blocks <= std::numeric_limits<int32_t>::max() &&
                    !__builtin_mul_overflow(header->blocks, header->block_bytes, &blocks_bytes) &&
                    bytes >= KvArenaHeader::BytesFor(header->blocks) + blocks_bytes;
  if (!fits) return absl::FailedPreconditionError("a peer's KV arena has another layout");
  peer->header_ = header;
  peer->blocks_ = header->blocks;
  peer->block_bytes_ = header->block_bytes;
  peer->first_ =
      static_cast<const std::byte*>(peer->memory_.data()) + KvArenaHeader::BytesFor(header->blocks);
  return peer;
}

namespace {

absl::Status AwaitSeal(const Seal& seal, int32_t block, uint64_t stamp, absl::Time deadline,
                       const std::atomic<bool>* stopped) {
  const auto sealed = [&] { return seal.stamp.load(std::memory_order_acquire) == stamp; };
  while (!SpinUntil(kSpinNs, sealed)) {
    if (stopped != nullptr && *stopped) return absl::AbortedError("the copy was given up");
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("KV block ", block, " was not sealed in time"));
    }
    absl::SleepFor(kNap);
  }
  return absl::OkStatus();
}

double MeasureCopy() {
  const std::vector<std::byte> from(kMeasuredBytes, std::byte{1});
  std::vector<std::byte> to(kMeasuredBytes, std::byte{2});
  absl::Duration best = absl::InfiniteDuration();
  for (int i = 0; i < 3; ++i) {
    const absl::Time begun = absl::Now();
    std::memcpy(to.data(), from.data(), kMeasuredBytes);
    best = std::min(best, absl::Now() - begun);
  }
  return static_cast<double>(kMeasuredBytes) / std::max(absl::ToDoubleSeconds(best), 1e-9);
}

}  // namespace

absl::Status PullBlock(const KvArenaPeer& from, int32_t from_block, uint64_t stamp, KvArena& to,
                       int32_t to_block, absl::Time deadline, const std::atomic<bool>* stopped) {
  if (from_block < 0 || from_block >= from.blocks() || to_block < 0 || to_block >= to.blocks()) {
    return absl::OutOfRangeError(absl::StrCat("KV block ", from_block, " of ", from.blocks(),
                                              " to block ", to_block, " of ", to.blocks()));
  }
  if (from.block_bytes() != to.block_bytes()) {
    return absl::FailedPreconditionError("KV blocks of different sizes");
  }
  const Seal& seal = from.header_->seals()[from_block];
  MUSTER_RETURN_IF_ERROR(AwaitSeal(seal, from_block, stamp, deadline, stopped));
  BlockDigest digest;
  digest.AddCopying(from.block(from_block), static_cast<size_t>(to.block_bytes()),
                    to.block(to_block));
  if (digest.value() == seal.digest.load(std::memory_order_relaxed)) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kDataLoss,
      absl::StrCat("KV block ", from_block, " arrived with another checksum than it was sent with"),
      {.reason = ErrorReason::kKvCorrupt});
}

double CopyBandwidth() {
  static const double measured = MeasureCopy();
  return measured;
}

}  // namespace muster
