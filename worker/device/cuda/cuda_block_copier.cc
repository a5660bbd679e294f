#include "worker/device/cuda/cuda_block_copier.h"

#include <algorithm>
#include <chrono>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "kernels/block_digest_cuda.h"
#include "kernels/cuda_status.h"
#include "worker/device/cuda/cuda_stream.h"

namespace muster {
namespace {

constexpr size_t kMaxBlocks = 1024;  // of a launch
constexpr size_t kStripe = 64;
constexpr size_t kMeasuredBytes = size_t{256} << 20;
constexpr char kTag[] = "block copier";

}  // namespace

absl::StatusOr<std::unique_ptr<CudaBlockCopier>> CudaBlockCopier::Create(CudaDevice& device) {
  auto copier = absl::WrapUnique(new CudaBlockCopier(device));
  constexpr size_t kAddresses = 2 * kMaxBlocks * sizeof(void*);
  constexpr size_t kLanes = kMaxBlocks * kDigestLanes * sizeof(uint64_t);
  absl::MutexLock lock(&copier->mu_);
  MUSTER_ASSIGN_OR_RETURN(copier->stream_, device.CreateStream());
  MUSTER_ASSIGN_OR_RETURN(copier->host_blocks_,
                          device.AllocateHost(kAddresses, kTag, copier->ledger_));
  MUSTER_ASSIGN_OR_RETURN(copier->blocks_, device.Allocate(kAddresses, kTag, copier->ledger_));
  MUSTER_ASSIGN_OR_RETURN(copier->host_lanes_, device.AllocateHost(kLanes, kTag, copier->ledger_));
  MUSTER_ASSIGN_OR_RETURN(copier->lanes_, device.Allocate(kLanes, kTag, copier->ledger_));
  return copier;
}

absl::Status CudaBlockCopier::Digest(absl::Span<const std::byte* const> blocks, size_t block_bytes,
                                     absl::Span<uint64_t> digests) {
  return RunAll({.from = blocks, .to = {}, .block_bytes = block_bytes}, digests);
}

absl::Status CudaBlockCopier::Copy(absl::Span<const std::byte* const> from,
                                   absl::Span<std::byte* const> to, size_t block_bytes,
                                   absl::Span<uint64_t> digests) {
  return RunAll({.from = from, .to = to, .block_bytes = block_bytes}, digests);
}

absl::Status CudaBlockCopier::RunAll(const Batch& all, absl::Span<uint64_t> digests) {
  if (all.block_bytes % kStripe != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("blocks of ", all.block_bytes, " bytes, no multiple of ", kStripe));
  }
  for (size_t at = 0; at < all.from.size(); at += kMaxBlocks) {
    const Batch batch = {.from = all.from.subspan(at, kMaxBlocks),
                         .to = all.to.empty() ? all.to : all.to.subspan(at, kMaxBlocks),
                         .block_bytes = all.block_bytes};
    absl::MutexLock lock(&mu_);
    MUSTER_RETURN_IF_ERROR(Run(batch, digests.subspan(at, kMaxBlocks)));
  }
  return absl::OkStatus();
}

absl::Status CudaBlockCopier::Run(const Batch& batch, absl::Span<uint64_t> digests) {
  absl::Status status = Enqueue(batch);
  // Whatever was enqueued uses the buffers.
  status.Update(stream_->Synchronize());
  MUSTER_RETURN_IF_ERROR(status);
  const auto* const lanes = host_lanes_.as<uint64_t>();
  for (size_t i = 0; i < digests.size(); ++i) {
    digests[i] = FoldDigestLanes(lanes + i * kDigestLanes, static_cast<int64_t>(batch.block_bytes));
  }
  return absl::OkStatus();
}

absl::Status CudaBlockCopier::Enqueue(const Batch& batch) {
  const size_t blocks = batch.from.size();
  auto* const addresses = host_blocks_.as<const void*>();
  std::copy(batch.from.begin(), batch.from.end(), addresses);
  std::copy(batch.to.begin(), batch.to.end(), addresses + blocks);
  MUSTER_RETURN_IF_ERROR(device_.Copy(*stream_, blocks_.data(), addresses,
                                      (blocks + batch.to.size()) * sizeof(void*)));
  MUSTER_RETURN_IF_ERROR(device_.MakeCurrent());
  const BlockDigestParams params = {.from = blocks_.as<const void*>(),
                                    .to = batch.to.empty() ? nullptr : blocks_.as<void*>() + blocks,
                                    .blocks = static_cast<int64_t>(blocks),
                                    .block_bytes = static_cast<int64_t>(batch.block_bytes),
                                    .lanes = lanes_.as<uint64_t>()};
  MUSTER_RETURN_IF_ERROR(CudaStatus(BlockDigestCuda(params, CudaDeviceStream::From(*stream_).get()),
                                    "the digests of KV blocks"));
  return device_.Copy(*stream_, host_lanes_.data(), lanes_.data(),
                      blocks * kDigestLanes * sizeof(uint64_t));
}

double CudaBlockCopier::Bandwidth() {
  absl::MutexLock lock(&mu_);
  if (bandwidth_ == 0) bandwidth_ = Measure().value_or(0);
  return bandwidth_;
}

absl::StatusOr<double> CudaBlockCopier::Measure() {
  MUSTER_ASSIGN_OR_RETURN(const Buffer from, device_.Allocate(kMeasuredBytes, kTag, ledger_));
  MUSTER_ASSIGN_OR_RETURN(const Buffer to, device_.Allocate(kMeasuredBytes, kTag, ledger_));
  absl::Duration best = absl::InfiniteDuration();
  for (int i = 0; i < 4; ++i) {
    const auto begun = std::chrono::steady_clock::now();
    MUSTER_RETURN_IF_ERROR(device_.Copy(*stream_, to.data(), from.data(), kMeasuredBytes));
    MUSTER_RETURN_IF_ERROR(stream_->Synchronize());
    best = std::min(best, absl::FromChrono(std::chrono::steady_clock::now() - begun));
  }
  return static_cast<double>(kMeasuredBytes) / std::max(absl::ToDoubleSeconds(best), 1e-9);
}

}  // namespace muster
