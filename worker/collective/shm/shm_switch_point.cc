#include "worker/collective/shm/shm_switch_point.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/status_macros.h"
#include "worker/collective/shm/shm_all_reduce.h"

namespace muster {
namespace {

constexpr uint64_t kNever = ~uint64_t{0};
constexpr int kRepeats = 5;
// Two shots must be this much faster: noise decides nothing.
constexpr double kMargin = 0.9;

// The best of a few.
absl::StatusOr<double> TimeAllReduce(ShmPeers& peers, ThreadPool& pool, std::vector<float>& data,
                                     size_t count) {
  double best = 1e9;
  for (int i = 0; i < kRepeats; ++i) {
    MUSTER_RETURN_IF_ERROR(peers.Exchange({.op = CollectiveOp::kBarrier}));
    const auto start = std::chrono::steady_clock::now();
    MUSTER_RETURN_IF_ERROR(
        ShmAllReduce(peers, pool, data.data(), data.data(), count, DType::kFloat32));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
  }
  return best;
}

}  // namespace

absl::StatusOr<uint64_t> MeasureTwoShotBytes(ShmPeers& peers, ThreadPool& pool) {
  if (peers.size() == 1) return kNever;
  const uint64_t before = peers.two_shot_bytes();
  const uint64_t largest = peers.slab_bytes();
  std::vector<float> data(largest / sizeof(float));
  uint64_t switch_bytes = kNever;
  // From large to small: the point is where two shots stop paying.
  bool pays = true;
  for (uint64_t bytes = largest; bytes >= std::max<uint64_t>(largest / 64, 4096); bytes /= 4) {
    const size_t count = bytes / sizeof(float);
    peers.set_two_shot_bytes(kNever);
    MUSTER_ASSIGN_OR_RETURN(const double one, TimeAllReduce(peers, pool, data, count));
    peers.set_two_shot_bytes(0);
    MUSTER_ASSIGN_OR_RETURN(const double two, TimeAllReduce(peers, pool, data, count));
    pays = pays && two < kMargin * one;
    // Between this size, which pays, and the next one.
    if (pays) switch_bytes = bytes / 2;
  }
  peers.set_two_shot_bytes(before);
  return switch_bytes;
}

}  // namespace muster
