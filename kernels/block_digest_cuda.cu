#include "kernels/block_digest_cuda.h"
#include "kernels/cuda_launch.cuh"

namespace muster {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kUnroll = 4;   // loads of a thread under way
constexpr int kRounds = 2;   // of kUnroll loads, by each thread
constexpr int kVector = 16;  // bytes
constexpr int kStripe = 64;
constexpr int kVectorsPerStripe = kStripe / kVector;
constexpr int kChunkVectors = kThreads * kUnroll * kRounds;  // of a block of threads
constexpr int64_t kMaxBlocks = 65535;

constexpr uint64_t kStep = 0x9e3779b97f4a7c15;
__constant__ constexpr uint64_t kKeys[kDigestLanes] = {
    0xc2b2ae3d27d4eb4f, 0x9e3779b185ebca87, 0x165667b19e3779f9, 0x85ebca77c2b2ae63,
    0x27d4eb2f165667c5, 0xa0761d6478bd642f, 0xe7037ed1a0b428db, 0x8ebc6af09c88c6e3};

__device__ uint64_t Product(uint64_t word, uint64_t key) {
  const uint64_t keyed = word ^ key;
  return (keyed & 0xffffffff) * (keyed >> 32);
}

// Two lanes, neighbours: a vector of a stripe holds both their words.
struct LanePair {
  uint64_t even = 0;
  uint64_t odd = 0;

  __device__ void Add(ulonglong2 words, uint64_t even_key, uint64_t odd_key) {
    even += Product(words.x, even_key) + words.y;
    odd += Product(words.y, odd_key) + words.x;
  }
  // Over the threads of a warp that hold the same lanes.
  __device__ void AddWarp() {
    for (int distance = kVectorsPerStripe; distance < 32; distance *= 2) {
      even += __shfl_xor_sync(0xFFFFFFFFu, even, distance);
      odd += __shfl_xor_sync(0xFFFFFFFFu, odd, distance);
    }
  }
};

// Of vectors [first, end) of a block, of which a thread takes every kThreads-th: all of one place
// in their stripes.
template <bool kCopy>
__device__ LanePair AddChunk(const ulonglong2* from, ulonglong2* to, int64_t first, int64_t end) {
  const int even_lane = static_cast<int>(threadIdx.x) % kVectorsPerStripe * 2;
  const uint64_t even_key = kKeys[even_lane];
  const uint64_t odd_key = kKeys[even_lane + 1];
  LanePair sums;
  for (int64_t at = first + threadIdx.x; at < end; at += kThreads * kUnroll) {
    ulonglong2 words[kUnroll];
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      if (at + i * kThreads < end) words[i] = from[at + i * kThreads];
    }
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const int64_t vector = at + i * kThreads;
      if (vector >= end) break;
      const uint64_t offset = static_cast<uint64_t>(vector) / kVectorsPerStripe * kStep;
      sums.Add(words[i], even_key + offset, odd_key + offset);
      if constexpr (kCopy) to[vector] = words[i];
    }
  }
  return sums;
}

template <bool kCopy>
__global__ void __launch_bounds__(kThreads) BlockDigestKernel(BlockDigestParams params) {
  __shared__ uint64_t partial[kWarps][kDigestLanes];
  const int64_t block = blockIdx.y;
  const int64_t first = int64_t{blockIdx.x} * kChunkVectors;
  const int64_t end = min(params.block_bytes / kVector, first + kChunkVectors);
  const auto* from = static_cast<const ulonglong2*>(params.from[block]);
  auto* to = kCopy ? static_cast<ulonglong2*>(params.to[block]) : nullptr;
  LanePair sums = AddChunk<kCopy>(from, to, first, end);
  sums.AddWarp();
  const int thread = static_cast<int>(threadIdx.x);
  if (thread % 32 < kVectorsPerStripe) {
    partial[thread / 32][thread % 32 * 2] = sums.even;
    partial[thread / 32][thread % 32 * 2 + 1] = sums.odd;
  }
  __syncthreads();
  if (thread >= kDigestLanes) return;
  unsigned long long sum = 0;
  for (int warp = 0; warp < kWarps; ++warp) sum += partial[warp][thread];
  uint64_t* lane = params.lanes + block * kDigestLanes + thread;
  atomicAdd(reinterpret_cast<unsigned long long*>(lane), sum);
}

uint64_t Scramble(uint64_t word) {
  word = (word ^ (word >> 32)) * 0xd6e8feb86659fd93;
  return word ^ (word >> 32);
}

}  // namespace

CudaLaunch BlockDigestCuda(const BlockDigestParams& params, CudaStream stream) {
  if (params.blocks < 0 || params.blocks > kMaxBlocks || params.block_bytes < 0 ||
      params.block_bytes % kStripe != 0) {
    return {cudaErrorInvalidValue};
  }
  if (params.blocks == 0) return {};
  const size_t bytes = static_cast<size_t>(params.blocks) * kDigestLanes * sizeof(uint64_t);
  const cudaError_t error = cudaMemsetAsync(params.lanes, 0, bytes, stream);
  if (error != cudaSuccess || params.block_bytes == 0) return {error};
  const int64_t vectors = params.block_bytes / kVector;
  const dim3 grid(static_cast<unsigned>((vectors + kChunkVectors - 1) / kChunkVectors),
                  static_cast<unsigned>(params.blocks));
  const cudaLaunchConfig_t config{.gridDim = grid, .blockDim = kThreads, .stream = stream};
  return params.to == nullptr ? Launch<BlockDigestKernel<false>>(config, params)
                              : Launch<BlockDigestKernel<true>>(config, params);
}

uint64_t FoldDigestLanes(const uint64_t* lanes, int64_t block_bytes) {
  uint64_t all = static_cast<uint64_t>(block_bytes / kStripe);
  for (int lane = 0; lane < kDigestLanes; ++lane) all = Scramble(all * kStep + lanes[lane]);
  return all;
}

}  // namespace muster
