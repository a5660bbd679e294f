// The best candidates among those that the threads of a block hold.
#ifndef MUSTER_KERNELS_BLOCK_SELECT_CUH_
#define MUSTER_KERNELS_BLOCK_SELECT_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/shard_top_k.h"

namespace muster {

inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// A candidate as a number that grows as Precedes says: the logit's order above the complement of
// the id. 0 is none.
using Key = unsigned long long;

__device__ inline bool IsCandidate(float logit) { return logit > -INFINITY && logit < INFINITY; }

__device__ inline Key KeyOf(float logit, int32_t id) {
  if (!IsCandidate(logit)) return 0;
  const uint32_t bits = __float_as_uint(logit == 0 ? 0.0f : logit);
  const uint32_t order = bits ^ (bits >> 31 != 0 ? 0xFFFFFFFFu : 0x80000000u);
  return Key{order} << 32 | ~static_cast<uint32_t>(id);
}
__device__ inline int32_t IdOf(Key key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}

template <typename T>
__device__ T FromLane(const T& value, int apart) {
  return __shfl_xor_sync(kAllLanes, value, apart);
}
__device__ inline ShardDraw FromLane(const ShardDraw& draw, int apart) {
  return {FromLane(draw.score, apart), FromLane(draw.id, apart), FromLane(draw.logit, apart)};
}

// Combines the values of all threads of a block in a fixed order; every thread gets the result.
// Each call needs `room` for as many values as there are warps, that nobody else uses before the
// next barrier.
template <typename T, typename Op>
__device__ T Combine(T value, T* room, const Op& op) {
  for (int apart = 16; apart > 0; apart /= 2) {
    value = op(value, FromLane(value, apart));
  }
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  __syncthreads();
  value = room[0];
  for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) value = op(value, room[warp]);
  return value;
}

template <typename T>
struct Sum {
  __device__ T operator()(T a, T b) const { return a + b; }
};

// Counts over a block again and again, with one barrier each.
class BlockCounter {
 public:
  using Room = int[2][32];
  __device__ explicit BlockCounter(Room& room) : room_(room) {}

  __device__ int Count(int mine) {
    int(&warps)[32] = room_[turn_ ^= 1];
    const int warp_count = __reduce_add_sync(kAllLanes, mine);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = warp_count;
    __syncthreads();
    const unsigned lane = threadIdx.x % 32;
    return __reduce_add_sync(kAllLanes, lane < blockDim.x / 32 ? warps[lane] : 0);
  }

 private:
  Room& room_;
  int turn_ = 0;
};

// The largest number that k or more of the block's values reach, found bit by bit; `reached` is how
// many do. At least k of them are not 0; k is at least 1.
template <int kValues, typename Read>
__device__ uint32_t Reached(const Read& value, int k, BlockCounter& counter, int& reached) {
  uint32_t threshold = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t trial = threshold | 1u << bit;
    int mine = 0;
#pragma unroll
    for (int i = 0; i < kValues; ++i) mine += value(i) >= trial;
    const int count = counter.Count(mine);
    if (count < k) continue;
    threshold = trial;
    reached = count;
    if (count == k) break;
  }
  return threshold;
}

// The key that exactly k of the block's keys reach. They are distinct, and at least k of them are
// not 0; k is at least 1.
template <int kValues>
__device__ Key Threshold(const Key (&keys)[kValues], int k, BlockCounter& counter) {
  int reached = 0;
  const auto order = [&](int i) { return static_cast<uint32_t>(keys[i] >> 32); };
  const uint32_t high = Reached<kValues>(order, k, counter, reached);
  if (reached == k) return Key{high} << 32;
  // Of those that tie at the end, the lowest ids.
  int mine = 0;
#pragma unroll
  for (int i = 0; i < kValues; ++i) mine += order(i) > high;
  const int above = counter.Count(mine);
  const auto tied = [&](int i) { return order(i) == high ? static_cast<uint32_t>(keys[i]) : 0u; };
  return Key{high} << 32 | Reached<kValues>(tied, k - above, counter, reached);
}

// Writes the block's k best keys in any order, and returns how many those are.
template <int kValues>
__device__ int KeepBest(const Key (&keys)[kValues], int k, Key* best) {
  __shared__ BlockCounter::Room room;
  __shared__ int kept;
  if (threadIdx.x == 0) kept = 0;
  BlockCounter counter(room);
  int mine = 0;
#pragma unroll
  for (int i = 0; i < kValues; ++i) mine += keys[i] != 0;
  const int count = counter.Count(mine);
  const Key least = k == 0 ? ~Key{0} : count <= k ? 1 : Threshold(keys, k, counter);
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    if (keys[i] >= least) best[atomicAdd(&kept, 1)] = keys[i];
  }
  return min(count, k);
}

}  // namespace muster

#endif  // MUSTER_KERNELS_BLOCK_SELECT_CUH_
