#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_words.cuh"
#include "kernels/peer_collectives.h"
#include "kernels/peer_exchange.cuh"

namespace muster {
namespace {

constexpr int kThreads = kPeerThreads;

struct Words {  // of this thread
  int64_t first, step, end;

  static __device__ Words Of(int64_t count) {
    return {int64_t{blockIdx.x} * blockDim.x + threadIdx.x, int64_t{gridDim.x} * blockDim.x, count};
  }
};

// Bytes may be anything, kEmpty too: a word carries twelve, and says which of its three 32-bit
// parts would be kEmpty and are sent as zero instead.
constexpr int kCarried = 12;

constexpr int64_t GatherWords(int64_t bytes) { return (bytes + kCarried - 1) / kCarried; }

__device__ bool IsPartAligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(uint32_t) == 0;
}

__device__ uint4 LoadCarried(const unsigned char* from, int64_t count) {
  uint32_t parts[3] = {};
  if (count >= kCarried && IsPartAligned(from)) {
#pragma unroll
    for (int i = 0; i < 3; ++i) parts[i] = reinterpret_cast<const uint32_t*>(from)[i];
  } else {
#pragma unroll
    for (int i = 0; i < kCarried; ++i) {
      if (i < count) parts[i / 4] |= uint32_t{from[i]} << (i % 4 * 8);
    }
  }
  uint32_t replaced = 0;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    if (parts[i] != kEmpty) continue;
    parts[i] = 0;
    replaced |= 1u << i;
  }
  return make_uint4(parts[0], parts[1], parts[2], replaced);
}

__device__ void StoreCarried(uint4 word, int64_t count, unsigned char* to) {
  uint32_t parts[3] = {word.x, word.y, word.z};
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    if ((word.w >> i & 1) != 0) parts[i] = kEmpty;
  }
  if (count >= kCarried && IsPartAligned(to)) {
#pragma unroll
    for (int i = 0; i < 3; ++i) reinterpret_cast<uint32_t*>(to)[i] = parts[i];
  } else {
#pragma unroll
    for (int i = 0; i < kCarried; ++i) {
      if (i < count) to[i] = static_cast<unsigned char>(parts[i / 4] >> (i % 4 * 8));
    }
  }
}

__global__ void __launch_bounds__(kThreads, kPeerBlocksPerMultiprocessor)
    GatherKernel(const __grid_constant__ PeerGatherParams params) {
  PeerOperation op(params.peers, params.stamp);
  const Words words = Words::Of(GatherWords(params.bytes));
  const auto* send = static_cast<const unsigned char*>(params.send);
  auto* receive = static_cast<unsigned char*>(params.receive);
  const auto sends = [&](int rank) { return params.root == kAllSend || params.root == rank; };
  const auto store = [&](uint4 word, int64_t w, int source) {
    const int64_t at = w * kCarried;
    StoreCarried(word, params.bytes - at, receive + source * params.receive_stride + at);
  };
  if (!op.refused()) {
    op.PushStamp();
    for (int64_t w = words.first; w < words.end && sends(op.rank()); w += words.step) {
      const uint4 word = LoadCarried(send + w * kCarried, params.bytes - w * kCarried);
      for (int peer = 0; peer < op.world(); ++peer) {
        if (peer != op.rank()) StoreRelaxed(op.Outbox(peer) + w, word);
      }
      if (params.root == kAllSend) store(word, w, op.rank());
    }
    for (int source = 0; source < op.world(); ++source) {
      if (source == op.rank() || !sends(source)) continue;
      for (int64_t w = words.first; w < words.end; w += words.step) {
        store(op.AwaitWord(source, op.Inbox(source) + w), w, source);
      }
    }
    op.GlanceAtStamps();
    op.CheckStamps();
  }
  op.Finish();
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kPeerBlocksPerMultiprocessor)
    ReduceKernel(const __grid_constant__ PeerReduceParams params) {
  constexpr int kElements = kWordElements<T>;
  PeerOperation op(params.peers, params.stamp);
  const Words words = Words::Of(RowWords(params.count, sizeof(T)));
  const auto load = [&](int rank, int64_t w) {
    const int64_t at = params.send_stride * rank + w * kElements;
    return MarkNotEmpty(
        LoadWord<false>(static_cast<const T*>(params.send) + at, params.count - w * kElements));
  };
  if (!op.refused()) {
    op.PushStamp();
    for (int64_t w = words.first; w < words.end; w += words.step) {
      for (int peer = 0; peer < op.world(); ++peer) {
        if (peer != op.rank()) StoreRelaxed(op.Outbox(peer) + w, load(peer, w));
      }
    }
    for (int64_t w = words.first; w < words.end; w += words.step) {
      uint4 summands[kMaxPeers];
      const uint4 own = load(op.rank(), w);
#pragma unroll
      for (int r = 0; r < kMaxPeers; ++r) summands[r] = own;
      op.AwaitWords(op.Inbox(0) + w, summands);
      StoreWord<false>(SumWord<T>(summands, op.world(), nullptr), params.count - w * kElements,
                       static_cast<T*>(params.receive) + w * kElements);
    }
    op.GlanceAtStamps();
    op.CheckStamps();
  }
  op.Finish();
}

unsigned Blocks(const Peers& peers, int64_t words) {
  const int64_t wanted = (words + kThreads - 1) / kThreads;
  return static_cast<unsigned>(wanted < 1                  ? 1
                               : wanted < peers.max_blocks ? wanted
                                                           : peers.max_blocks);
}

}  // namespace

int64_t MostGathered(const PeerLayout& layout) { return layout.slot_bytes / 16 * kCarried; }

CudaLaunch PeerGatherCuda(const PeerGatherParams& params, CudaStream stream) {
  if (params.bytes > MostGathered(params.peers.layout)) return {cudaErrorInvalidValue};
  const unsigned blocks = Blocks(params.peers, GatherWords(params.bytes));
  return Launch<GatherKernel>({.gridDim = blocks, .blockDim = kThreads, .stream = stream}, params);
}

CudaLaunch PeerReduceCuda(const PeerReduceParams& params, CudaStream stream) {
  const int64_t words = RowWords(params.count, SizeOf(params.dtype));
  if (words * 16 > params.peers.layout.slot_bytes) return {cudaErrorInvalidValue};
  return WithElementType(params.dtype, [&](auto element) {
    const unsigned blocks = Blocks(params.peers, words);
    return Launch<ReduceKernel<decltype(element)>>(
        {.gridDim = blocks, .blockDim = kThreads, .stream = stream}, params);
  });
}

}  // namespace muster
