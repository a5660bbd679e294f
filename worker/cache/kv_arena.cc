#include "worker/cache/kv_arena.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/spin_wait.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr uint64_t kMagic = 0x616e6572616b766d;  // "mvkarena"
constexpr char kBetweenHandles = ';';
constexpr int64_t kSpinNs = 50'000;
constexpr absl::Duration kNap = absl::Microseconds(50);

struct PublishedSeal {
  std::atomic<uint64_t> stamp{0};
  std::atomic<uint64_t> digest{0};
};

absl::Status GivenUp() { return absl::AbortedError("the move of KV blocks was given up"); }

}  // namespace

// The seals follow it.
struct KvArenaHeader {
  uint64_t magic = 0;
  int64_t blocks = 0;
  int64_t block_bytes = 0;
  int32_t layout[5] = {};
  int32_t reserved = 0;

  PublishedSeal* seals() { return reinterpret_cast<PublishedSeal*>(this + 1); }
  const PublishedSeal* seals() const { return reinterpret_cast<const PublishedSeal*>(this + 1); }
  static int64_t BytesFor(int64_t blocks) {
    return static_cast<int64_t>(sizeof(KvArenaHeader)) +
           blocks * static_cast<int64_t>(sizeof(PublishedSeal));
  }
  bool Has(const KvLayout& other) const {
    const int32_t words[5] = {other.layers, other.kv_heads, other.block_size, other.head_dim,
                              static_cast<int32_t>(other.dtype)};
    return std::equal(layout, layout + 5, words);
  }
};

KvArena::KvArena(const KvLayout& layout, int64_t blocks, const KvMeans& means)
    : means_(means), layout_(layout), blocks_(blocks), block_bytes_(KvBlockBytes(layout)) {}

absl::StatusOr<std::shared_ptr<KvArena>> KvArena::Create(const KvLayout& layout, int64_t blocks,
                                                         const KvMeans& means) {
  const int64_t block_bytes = KvBlockBytes(layout);
  int64_t bytes = 0;
  if (blocks < 1 || blocks > std::numeric_limits<int32_t>::max() ||
      __builtin_mul_overflow(blocks, block_bytes, &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("a KV arena of ", blocks, " blocks"));
  }
  auto arena = absl::WrapUnique(new KvArena(layout, blocks, means));
  // A device need not export nothing.
  const size_t exported = std::max<size_t>(static_cast<size_t>(bytes), 1);
  MUSTER_ASSIGN_OR_RETURN(arena->memory_,
                          means.device.AllocateExported(exported, "kv", arena->ledger_));
  const auto seals = static_cast<size_t>(KvArenaHeader::BytesFor(blocks));
  MUSTER_ASSIGN_OR_RETURN(arena->seals_, means.host.AllocateExported(seals, "kv", arena->ledger_));
  arena->handle_ = absl::StrCat(arena->memory_.handle(), std::string(1, kBetweenHandles),
                                arena->seals_.handle());
  auto* const header = new (arena->seals_.data())
      KvArenaHeader{.magic = kMagic,
                    .blocks = blocks,
                    .block_bytes = block_bytes,
                    .layout = {layout.layers, layout.kv_heads, layout.block_size, layout.head_dim,
                               static_cast<int32_t>(layout.dtype)}};
  std::uninitialized_default_construct_n(header->seals(), blocks);
  return std::shared_ptr<KvArena>(std::move(arena));
}

namespace {

size_t BlocksPerBatch(const KvArena& arena) {
  const auto block_bytes = static_cast<size_t>(std::max<int64_t>(arena.block_bytes(), 1));
  return std::max<size_t>(arena.copier().batch_bytes() / block_bytes, 1);
}

}  // namespace

absl::Status KvArena::Seal(absl::Span<const BlockSeal> seals) {
  const size_t most = BlocksPerBatch(*this);
  for (size_t at = 0; at < seals.size(); at += most) {
    MUSTER_RETURN_IF_ERROR(SealBatch(seals.subspan(at, most)));
  }
  return absl::OkStatus();
}

absl::Status KvArena::SealBatch(absl::Span<const BlockSeal> seals) {
  std::vector<const std::byte*> blocks;
  for (const BlockSeal& seal : seals) blocks.push_back(block(seal.block));
  std::vector<uint64_t> digests(seals.size());
  MUSTER_RETURN_IF_ERROR(
      means_.copier.Digest(blocks, static_cast<size_t>(block_bytes_), absl::MakeSpan(digests)));
  for (size_t i = 0; i < seals.size(); ++i) {
    PublishedSeal& published = seals_.as<KvArenaHeader>()->seals()[seals[i].block];
    published.digest.store(digests[i] ^ falsified_, std::memory_order_relaxed);
    published.stamp.store(seals[i].stamp, std::memory_order_release);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<KvArenaPeer>> KvArenaPeer::Open(absl::string_view handle,
                                                               const KvLayout& layout,
                                                               const KvMeans& means) {
  const std::vector<absl::string_view> handles = absl::StrSplit(handle, kBetweenHandles);
  if (handles.size() != 2) return absl::UnavailableError("this is no handle of a KV arena");
  auto peer = absl::WrapUnique(new KvArenaPeer());
  MUSTER_ASSIGN_OR_RETURN(peer->memory_, means.device.OpenExported(handles[0]));
  MUSTER_ASSIGN_OR_RETURN(peer->seals_, means.host.OpenExported(handles[1]));
  const auto* header = static_cast<const KvArenaHeader*>(peer->seals_.data());
  const auto bytes = static_cast<int64_t>(peer->memory_.bytes());
  const auto seal_bytes = static_cast<int64_t>(peer->seals_.bytes());
  int64_t blocks_bytes = 0;
  const bool fits = seal_bytes >= static_cast<int64_t>(sizeof(KvArenaHeader)) &&
                    header->magic == kMagic && header->Has(layout) &&
                    header->block_bytes == KvBlockBytes(layout) && header->blocks > 0 &&
                    header->blocks <= std::numeric_limits<int32_t>::max() &&
                    !__builtin_mul_overflow(header->blocks, header->block_bytes, &blocks_bytes) &&
                    bytes >= blocks_bytes && seal_bytes >= KvArenaHeader::BytesFor(header->blocks);
  if (!fits) return absl::FailedPreconditionError("a peer's KV arena has another layout");
  peer->header_ = header;
  peer->blocks_ = header->blocks;
  peer->block_bytes_ = header->block_bytes;
  return peer;
}

absl::Status KvArenaPeer::AwaitSeal(const BlockSeal& seal, absl::Time deadline,
                                    const std::atomic<bool>* stopped) const {
  const PublishedSeal& published = header_->seals()[seal.block];
  const auto sealed = [&] { return published.stamp.load(std::memory_order_acquire) == seal.stamp; };
  while (!SpinUntil(kSpinNs, sealed)) {
    if (stopped != nullptr && *stopped) return GivenUp();
    if (Clock::Real().Now() > deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("KV block ", seal.block, " was not sealed in time"));
    }
    absl::SleepFor(kNap);
  }
  return absl::OkStatus();
}

uint64_t KvArenaPeer::digest(int32_t block) const {
  return header_->seals()[block].digest.load(std::memory_order_relaxed);
}

namespace {

absl::Status CheckPull(const BlockPull& pull, const KvArena& to) {
  const KvArenaPeer& from = *pull.from;
  const int32_t block = pull.seal.block;
  if (block < 0 || block >= from.blocks() || pull.to_block < 0 || pull.to_block >= to.blocks()) {
    return absl::OutOfRangeError(absl::StrCat("KV block ", block, " of ", from.blocks(),
                                              " to block ", pull.to_block, " of ", to.blocks()));
  }
  if (from.block_bytes() == to.block_bytes()) return absl::OkStatus();
  return absl::FailedPreconditionError("KV blocks of different sizes");
}

absl::Status PullBatch(absl::Span<const BlockPull> pulls, KvArena& to) {
  std::vector<const std::byte*> sources;
  std::vector<std::byte*> targets;
  for (const BlockPull& pull : pulls) {
    sources.push_back(pull.from->block(pull.seal.block));
    targets.push_back(to.block(pull.to_block));
  }
  std::vector<uint64_t> digests(pulls.size());
  MUSTER_RETURN_IF_ERROR(to.copier().Copy(sources, targets, static_cast<size_t>(to.block_bytes()),
                                          absl::MakeSpan(digests)));
  for (size_t i = 0; i < pulls.size(); ++i) {
    const int32_t block = pulls[i].seal.block;
    if (digests[i] == pulls[i].from->digest(block)) continue;
    return MakeError(
        absl::StatusCode::kDataLoss,
        absl::StrCat("KV block ", block, " arrived with another checksum than it was sent with"),
        {.reason = ErrorReason::kKvCorrupt});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PullBlocks(absl::Span<const BlockPull> pulls, KvArena& to, absl::Time deadline,
                        const std::atomic<bool>* stopped) {
  for (const BlockPull& pull : pulls) MUSTER_RETURN_IF_ERROR(CheckPull(pull, to));
  const size_t most = BlocksPerBatch(to);
  for (size_t at = 0; at < pulls.size(); at += most) {
    const auto batch = pulls.subspan(at, most);
    if (stopped != nullptr && *stopped) return GivenUp();
    for (const BlockPull& pull : batch) {
      MUSTER_RETURN_IF_ERROR(pull.from->AwaitSeal(pull.seal, deadline, stopped));
    }
    MUSTER_RETURN_IF_ERROR(PullBatch(batch, to));
  }
  return absl::OkStatus();
}

}  // namespace muster
