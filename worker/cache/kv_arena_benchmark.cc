// Copies of sealed KV blocks from another arena against plain copies of the same bytes.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/status_macros.h"
#include "kernels/benchmark_timer.h"
#include "worker/cache/kv_arena.h"
#include "worker/device/cpu/cpu_block_copier.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster {
namespace {

constexpr int kRounds = 15;
constexpr int32_t kBlocks = 256;
constexpr double kLimit = 0.80;  // of the bandwidth of a plain copy
// 360 KiB a block: SmolLM2-135M in bfloat16.
constexpr KvLayout kLayout = {
    .layers = 30, .kv_heads = 3, .block_size = 16, .head_dim = 64, .dtype = DType::kBFloat16};

absl::Status Fill(KvArena& arena) {
  std::vector<BlockSeal> seals;
  uint64_t word = 1;
  for (int64_t block = 0; block < arena.blocks(); ++block) {
    for (int64_t at = 0; at < arena.block_bytes(); at += sizeof(word)) {
      word = word * 6364136223846793005 + 1442695040888963407;
      std::memcpy(arena.block(block) + at, &word, sizeof(word));
    }
    seals.push_back({.block = static_cast<int32_t>(block), .stamp = 1});
  }
  return arena.Seal(seals);
}

absl::Status PullAll(const KvArenaPeer& from, KvArena& to) {
  std::vector<BlockPull> pulls;
  for (int32_t block = 0; block < kBlocks; ++block) {
    pulls.push_back(
        {.from = &from, .seal = {.block = block, .stamp = 1}, .to_block = kBlocks - 1 - block});
  }
  return PullBlocks(pulls, to, absl::InfiniteFuture(), nullptr);
}

void CopyAll(const KvArenaPeer& from, KvArena& to) {
  const auto bytes = static_cast<size_t>(to.block_bytes());
  for (int32_t block = 0; block < kBlocks; ++block) {
    std::memcpy(to.block(kBlocks - 1 - block), from.block(block), bytes);
  }
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + kRounds / 2, values.end());
  return values[kRounds / 2];
}

absl::Status Run() {
  CpuDevice device({});
  CpuBlockCopier copier;
  const KvMeans means{.device = device, .host = device, .copier = copier};
  MUSTER_ASSIGN_OR_RETURN(const auto source, KvArena::Create(kLayout, kBlocks, means));
  MUSTER_ASSIGN_OR_RETURN(const auto target, KvArena::Create(kLayout, kBlocks, means));
  MUSTER_ASSIGN_OR_RETURN(const auto peer, KvArenaPeer::Open(source->handle(), kLayout, means));
  MUSTER_RETURN_IF_ERROR(Fill(*source));
  MUSTER_RETURN_IF_ERROR(PullAll(*peer, *target));
  if (std::memcmp(target->block(0), source->block(kBlocks - 1),
                  static_cast<size_t>(source->block_bytes())) != 0) {
    return absl::InternalError("a block arrived as another");
  }
  std::vector<double> pulls, copies, ratios;
  absl::Status pulled;
  for (int round = 0; round < kRounds; ++round) {
    pulls.push_back(MedianSeconds(1, [&] { pulled.Update(PullAll(*peer, *target)); }));
    copies.push_back(MedianSeconds(1, [&] { CopyAll(*peer, *target); }));
    ratios.push_back(copies.back() / pulls.back());
  }
  MUSTER_RETURN_IF_ERROR(pulled);
  const double bytes = static_cast<double>(source->block_bytes()) * kBlocks;
  std::printf("%d blocks of %lld KiB, medians of %d rounds; limit: ratio %.2f\n\n", kBlocks,
              static_cast<long long>(source->block_bytes() >> 10), kRounds, kLimit);
  std::printf("| PullBlocks GB/s | memcpy GB/s | ratio | plain copy GB/s |\n");
  std::printf("|---|---|---|---|\n| %.2f | %.2f | %.2f | %.2f |\n", bytes / Median(pulls) / 1e9,
              bytes / Median(copies) / 1e9, Median(ratios), copier.Bandwidth() / 1e9);
  return absl::OkStatus();
}

}  // namespace
}  // namespace muster

int main() {
  const absl::Status status = muster::Run();
  if (!status.ok()) std::fprintf(stderr, "kv_arena_benchmark: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
