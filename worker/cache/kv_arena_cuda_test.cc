// An arena of one process on a GPU, and copies of its blocks to another process's.
#include <gtest/gtest.h>

#include <cstdio>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/topology.h"
#include "tests/support/run_ranks.h"
#include "tests/support/status_matchers.h"
#include "worker/cache/kv_arena.h"
#include "worker/collective/group.h"
#include "worker/device/block_digest.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cuda/cuda_block_copier.h"

namespace muster::testing {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(30);
constexpr int32_t kBlocks = 256;
// 2 MiB a block: Llama 3 8B in bfloat16.
constexpr KvLayout kLayout = {
    .layers = 32, .kv_heads = 8, .block_size = 16, .head_dim = 128, .dtype = DType::kBFloat16};
constexpr auto kBytes = static_cast<size_t>(KvBlockBytes(kLayout));

// One rank's side of a test.
class ArenaRank {
 public:
  static absl::StatusOr<std::unique_ptr<ArenaRank>> Create(RankContext& context) {
    auto rank = std::make_unique<ArenaRank>(context);
    MUSTER_ASSIGN_OR_RETURN(rank->device_, CudaDevice::Create({}));
    MUSTER_ASSIGN_OR_RETURN(rank->copier_, CudaBlockCopier::Create(*rank->device_));
    MUSTER_ASSIGN_OR_RETURN(rank->stream_, rank->device_->CreateStream());
    MUSTER_ASSIGN_OR_RETURN(rank->staging_,
                            rank->device_->AllocateHost(kBytes, "test", rank->ledger_));
    MUSTER_ASSIGN_OR_RETURN(rank->arena_, KvArena::Create(kLayout, kBlocks, rank->means()));
    return rank;
  }
  explicit ArenaRank(RankContext& context) : context_(context) {}

  KvArena& arena() { return *arena_; }
  KvMeans means() { return {.device = *device_, .host = host_, .copier = *copier_}; }

  // All ranks meet. What rank 0 says.
  absl::StatusOr<std::string> Hear(absl::string_view text) {
    const std::vector<GroupSpec> groups = DeriveGroups({.cp = context_.world}, Epoch(1));
    MUSTER_ASSIGN_OR_RETURN(const Group group, Group::Create(groups[0], context_.rank));
    MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                            context_.rendezvous.AllGather(
                                group, absl::StrCat("meeting ", ++meetings_), text, kTimeout));
    return all[0];
  }

  // Writes numbers that `seed` gives to a block, whose digest they have.
  absl::StatusOr<uint64_t> Write(int32_t block, uint64_t seed) {
    std::mt19937_64 random(seed);
    for (size_t i = 0; i < kBytes / sizeof(uint64_t); ++i) staging_.as<uint64_t>()[i] = random();
    MUSTER_RETURN_IF_ERROR(Copy(arena_->block(block), staging_.data()));
    return StagedDigest();
  }
  // Of what a block has now, computed by the host.
  absl::StatusOr<uint64_t> Read(int32_t block) {
    MUSTER_RETURN_IF_ERROR(Copy(staging_.data(), arena_->block(block)));
    return StagedDigest();
  }

 private:
  uint64_t StagedDigest() const {
    BlockDigest digest;
    digest.Add(staging_.as<std::byte>(), kBytes);
    return digest.value();
  }
  absl::Status Copy(void* to, const void* from) {
    MUSTER_RETURN_IF_ERROR(device_->Copy(*stream_, to, from, kBytes));
    return stream_->Synchronize();
  }

  RankContext& context_;
  std::unique_ptr<CudaDevice> device_;
  CpuDevice host_{{}};
  std::unique_ptr<CudaBlockCopier> copier_;
  std::unique_ptr<Stream> stream_;
  Ledger ledger_;
  Buffer staging_;
  int meetings_ = 0;
  std::shared_ptr<KvArena> arena_;  // last: its end needs the others
};

std::vector<BlockSeal> SealsOf(uint64_t stamp) {
  std::vector<BlockSeal> seals(kBlocks);
  for (int32_t block = 0; block < kBlocks; ++block) seals[block] = {.block = block, .stamp = stamp};
  return seals;
}

double GigabytesPerSecond(absl::Time begun) {
  return static_cast<double>(kBytes) * kBlocks / absl::ToDoubleSeconds(absl::Now() - begun) / 1e9;
}

// Rank 0: seals its blocks, then changes one of them behind its seal, then seals it again.
absl::Status Give(ArenaRank& rank, RankContext& context) {
  std::vector<uint64_t> digests;
  for (int32_t block = 0; block < kBlocks; ++block) {
    MUSTER_ASSIGN_OR_RETURN(const uint64_t digest, rank.Write(block, std::random_device()()));
    digests.push_back(digest);
  }
  MUSTER_RETURN_IF_ERROR(
      rank.Hear(absl::StrCat(rank.arena().handle(), "\n", absl::StrJoin(digests, "\n"))).status());
  for (uint64_t stamp = 1; stamp <= 3; ++stamp) {
    const absl::Time begun = absl::Now();
    MUSTER_RETURN_IF_ERROR(rank.arena().Seal(SealsOf(stamp)));
    absl::StrAppend(&context.output, static_cast<int>(GigabytesPerSecond(begun)), " ");
    MUSTER_RETURN_IF_ERROR(rank.Hear("sealed").status());
    MUSTER_RETURN_IF_ERROR(rank.Hear("pulled").status());
  }
  MUSTER_RETURN_IF_ERROR(rank.Write(7, std::random_device()()).status());
  MUSTER_RETURN_IF_ERROR(rank.Hear("changed").status());
  MUSTER_RETURN_IF_ERROR(rank.Hear("refused").status());
  MUSTER_RETURN_IF_ERROR(rank.arena().Seal({{.block = 7, .stamp = 4}}));
  return rank.Hear("closed").status();
}

absl::Status CheckArrived(ArenaRank& rank, const std::vector<uint64_t>& digests) {
  for (int32_t block = 0; block < kBlocks; ++block) {
    MUSTER_ASSIGN_OR_RETURN(const uint64_t digest, rank.Read(kBlocks - 1 - block));
    if (digest == digests[block]) continue;
    return absl::InternalError(absl::StrCat("block ", block, " arrived as another"));
  }
  return absl::OkStatus();
}

absl::Status Take(ArenaRank& rank, RankContext& context) {
  MUSTER_ASSIGN_OR_RETURN(const std::string heard, rank.Hear(""));
  const std::vector<std::string> lines = absl::StrSplit(heard, '\n');
  std::vector<uint64_t> digests(kBlocks);
  for (int32_t i = 0; i < kBlocks; ++i) {
    if (!absl::SimpleAtoi(lines[i + 1], &digests[i])) return absl::InternalError("no digest");
  }
  MUSTER_ASSIGN_OR_RETURN(auto peer, KvArenaPeer::Open(lines[0], kLayout, rank.means()));
  const auto pull = [&](absl::Span<const BlockSeal> seals) {
    std::vector<BlockPull> pulls;
    for (const BlockSeal& seal : seals) {
      pulls.push_back({.from = peer.get(), .seal = seal, .to_block = kBlocks - 1 - seal.block});
    }
    return PullBlocks(pulls, rank.arena(), absl::Now() + kTimeout, nullptr);
  };
  for (uint64_t stamp = 1; stamp <= 3; ++stamp) {
    MUSTER_RETURN_IF_ERROR(rank.Hear("").status());
    const absl::Time begun = absl::Now();
    MUSTER_RETURN_IF_ERROR(pull(SealsOf(stamp)));
    absl::StrAppend(&context.output, static_cast<int>(GigabytesPerSecond(begun)), " ");
    MUSTER_RETURN_IF_ERROR(rank.Hear("").status());
  }
  MUSTER_RETURN_IF_ERROR(CheckArrived(rank, digests));
  MUSTER_RETURN_IF_ERROR(rank.Hear("").status());
  const absl::Status refused = pull(SealsOf(3));
  if (DetailOf(refused).reason != ErrorReason::kKvCorrupt) {
    return absl::InternalError(absl::StrCat("of a changed block: ", refused.ToString()));
  }
  MUSTER_RETURN_IF_ERROR(rank.Hear("").status());
  MUSTER_RETURN_IF_ERROR(pull({{.block = 7, .stamp = 4}}));
  peer.reset();
  return rank.Hear("").status();
}

const RankCase kMove("MoveBetweenArenas", [](RankContext& context) -> absl::Status {
  MUSTER_ASSIGN_OR_RETURN(const auto rank, ArenaRank::Create(context));
  return context.rank == GlobalRank(0) ? Give(*rank, context) : Take(*rank, context);
});

TEST(KvArenaCudaTest, BlocksMoveBetweenProcesses) {
  const auto results =
      RunRanks(2, "MoveBetweenArenas", {.as = RanksAs::kProcesses, .timeout = absl::Minutes(1)});
  EXPECT_OK(AllOk(results));
  std::printf("sealing %d blocks of 2 MiB, three times: %s GB/s; pulling them: %s GB/s\n", kBlocks,
              results[0].output.c_str(), results[1].output.c_str());
}

}  // namespace
}  // namespace muster::testing
