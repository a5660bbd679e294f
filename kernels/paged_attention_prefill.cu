// FlashAttention (Dao, 2023; Shah et al., 2024) over paged keys. A block is three warpgroups: the
// first copies keys and values into stages of shared memory, the other two each attend with half of
// a tile's queries, rows x the heads of a chunk. Blocks stay and take tiles in turn, so that the
// keys of a tile are fetched while the one before is finished.

#include <algorithm>

#include "kernels/cuda_launch.cuh"
#include "kernels/paged_attention_cuda.cuh"
#include "kernels/paged_attention_prefill_consumer.cuh"
#include "kernels/paged_attention_prefill_producer.cuh"
#include "kernels/paged_attention_prefill_stages.cuh"
#include "kernels/wgmma_sm90.cuh"

namespace muster {
namespace prefill {
namespace {

template <int kDim>
__device__ void InitBarriers(PrefillShared<kDim>& shared) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < PrefillShape<kDim>::kStages; ++stage) {
      InitBarrier(SharedAddress(&shared.keys_full[stage]), kGroupThreads + 1);
      InitBarrier(SharedAddress(&shared.values_full[stage]), kGroupThreads);
      InitBarrier(SharedAddress(&shared.keys_empty[stage]), kConsumers * kGroupThreads / 32);
      InitBarrier(SharedAddress(&shared.values_empty[stage]), kConsumers * kGroupThreads / 32);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillKernel(const __grid_constant__ AttentionArgs args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ std::byte memory[];
  auto& shared = *reinterpret_cast<PrefillShared<kDim>*>(
      (reinterpret_cast<uintptr_t>(memory) + 1023) / 1024 * 1024);
  InitBarriers(shared);
  if (threadIdx.x < kGroupThreads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    Producer<kDim> producer(args, shared);
    ForEachTile(args, [&](const PrefillTile& tile, int32_t chunk) { producer.Run(tile, chunk); });
    asm volatile("cp.async.wait_all;" ::: "memory");
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
    Consumer<T, kDim> consumer(args, shared);
    ForEachTile(args, [&](const PrefillTile& tile, int32_t chunk) { consumer.Run(tile, chunk); });
  }
#endif
}

template <typename T, int kDim>
CudaLaunch LaunchKernel(const AttentionArgs& args, int multiprocessors, CudaStream stream) {
  constexpr size_t kShared = sizeof(PrefillShared<kDim>) + 1024;
  const cudaError_t error = cudaFuncSetAttribute(
      PrefillKernel<T, kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return {static_cast<int>(error)};
  const int64_t most = args.rows * args.params.layout.kv_heads * args.chunks;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(most, multiprocessors));
  return Launch<PrefillKernel<T, kDim>>(
      {.gridDim = blocks, .blockDim = kThreads, .dynamicSmemBytes = kShared, .stream = stream},
      args);
}

template <typename T>
CudaLaunch LaunchForDim(const AttentionArgs& args, int multiprocessors, CudaStream stream) {
  const int32_t dim = args.params.layout.head_dim;
  if (dim <= 64) return LaunchKernel<T, 64>(args, multiprocessors, stream);
  if (dim <= 128) return LaunchKernel<T, 128>(args, multiprocessors, stream);
  return LaunchKernel<T, 256>(args, multiprocessors, stream);
}

}  // namespace
}  // namespace prefill

CudaLaunch LaunchPrefillAttention(const AttentionArgs& args, int multiprocessors,
                                  CudaStream stream) {
  if (args.params.activation == DType::kBFloat16) {
    return prefill::LaunchForDim<__nv_bfloat16>(args, multiprocessors, stream);
  }
  return prefill::LaunchForDim<__half>(args, multiprocessors, stream);
}

}  // namespace muster
