#include "worker/device/cpu/cpu_block_copier.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "absl/time/time.h"
#include "worker/device/block_digest.h"

namespace muster {
namespace {

constexpr size_t kMeasuredBytes = size_t{64} << 20;

double MeasureCopy() {
  const std::vector<std::byte> from(kMeasuredBytes, std::byte{1});
  std::vector<std::byte> to(kMeasuredBytes, std::byte{2});
  absl::Duration best = absl::InfiniteDuration();
  for (int i = 0; i < 3; ++i) {
    const auto begun = std::chrono::steady_clock::now();
    std::memcpy(to.data(), from.data(), kMeasuredBytes);
    best = std::min(best, absl::FromChrono(std::chrono::steady_clock::now() - begun));
  }
  return static_cast<double>(kMeasuredBytes) / std::max(absl::ToDoubleSeconds(best), 1e-9);
}

}  // namespace

absl::Status CpuBlockCopier::Digest(absl::Span<const std::byte* const> blocks, size_t block_bytes,
                                    absl::Span<uint64_t> digests) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    BlockDigest digest;
    digest.Add(blocks[i], block_bytes);
    digests[i] = digest.value();
  }
  return absl::OkStatus();
}

absl::Status CpuBlockCopier::Copy(absl::Span<const std::byte* const> from,
                                  absl::Span<std::byte* const> to, size_t block_bytes,
                                  absl::Span<uint64_t> digests) {
  for (size_t i = 0; i < from.size(); ++i) {
    BlockDigest digest;
    digest.AddCopying(from[i], block_bytes, to[i]);
    digests[i] = digest.value();
  }
  return absl::OkStatus();
}

double CpuBlockCopier::Bandwidth() {
  // Of this machine, whichever of its copiers is asked.
  static const double measured = MeasureCopy();
  return measured;
}

}  // namespace muster
