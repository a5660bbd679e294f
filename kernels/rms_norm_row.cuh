// The normalisation of a row with one order of operations: whatever the number of threads and
// blocks that share it, and whichever kernel does it, the bits are the same.
#ifndef MUSTER_KERNELS_RMS_NORM_ROW_CUH_
#define MUSTER_KERNELS_RMS_NORM_ROW_CUH_

#include <cooperative_groups.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_words.cuh"
#include "kernels/row_grid.h"

namespace muster {

// The blocks of a cluster. Below compute capability 9.0 every block is one of its own.
struct RowCluster {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  using Group = cooperative_groups::cluster_group;

  static __device__ int Blocks() { return static_cast<int>(Group::num_blocks()); }
  static __device__ int Block() { return static_cast<int>(Group::block_rank()); }
  static __device__ void Arrive() { asm volatile("barrier.cluster.arrive;" : : : "memory"); }
  static __device__ void Wait() { asm volatile("barrier.cluster.wait;" : : : "memory"); }
  static __device__ void Synchronise() { cooperative_groups::this_cluster().sync(); }
  // Where `block` has what this one has at `own` of its shared memory.
  static __device__ float* Shared(float* own, int block) {
    return cooperative_groups::this_cluster().map_shared_rank(own, block);
  }
#else
  static __device__ int Blocks() { return 1; }
  static __device__ int Block() { return 0; }
  static __device__ void Arrive() {}
  static __device__ void Wait() {}
  static __device__ void Synchronise() { __syncthreads(); }
  static __device__ float* Shared(float* own, int /*block*/) { return own; }
#endif
};

// The blocks that share a row: a cluster, or one block. Word w belongs to thread w % threads of
// all.
struct RowTeam {
  int block;   // within the team
  int blocks;  // of the team
  int64_t index;
  int64_t teams;

  static __device__ RowTeam Own() {
    const int blocks = RowCluster::Blocks();
    return {RowCluster::Block(), blocks, blockIdx.x / blocks, gridDim.x / blocks};
  }
  // The k-th word of this thread.
  __device__ int Word(int k) const {
    return (k * blocks + block) * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
  }
};

__device__ inline float SumOfWarp(float value) {
#pragma unroll
  for (int mask = 16; mask != 0; mask /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, mask);
  }
  return value;
}

// Adds up a row's squares: those of 32 neighbouring words by a butterfly, then these segments.
class RowSum {
 public:
  // Collective in the team, as is Of, to be called at least once: blocks of a cluster write to each
  // other only once all have begun.
  __device__ explicit RowSum(const RowTeam& team) {
    if (team.blocks > 1) RowCluster::Arrive();
  }

  // squares[k] is of this thread's k-th word, 0 beyond the row.
  template <int kWords>
  __device__ float Of(const float (&squares)[kWords], const RowTeam& team, int words) {
    if (first_ && team.blocks > 1) RowCluster::Wait();
    first_ = false;
    turn_ ^= 1;
#pragma unroll
    for (int k = 0; k < kWords; ++k) {
      const float segment = SumOfWarp(squares[k]);
      const int word = team.Word(k);
      if (word % 32 < team.blocks && word / 32 * 32 < words) {
        Publish(team, word % 32, word / 32, segment);
      }
    }
    if (team.blocks == 1) {
      __syncthreads();
    } else {
      RowCluster::Synchronise();
    }
    float sum = 0;
    for (int i = threadIdx.x % 32; i < (words + 31) / 32; i += 32) sum += Segments()[turn_][i];
    return SumOfWarp(sum);
  }

 private:
  static constexpr int kMaxSegments = kMaxRowWords / 32;
  using Buffers = float[2][kMaxSegments];  // in turn, so that one barrier a row suffices

  static __device__ Buffers& Segments() {
    __shared__ Buffers segments;
    return segments;
  }
  __device__ void Publish(const RowTeam& team, int block, int segment, float value) const {
    float* own = &Segments()[turn_][segment];
    *(team.blocks == 1 ? own : RowCluster::Shared(own, block)) = value;
  }

  bool first_ = true;
  int turn_ = 0;
};

// What follows once a row's residuals are known.
template <typename T>
struct RowNorm {
  float eps;
  int64_t hidden;
  T* residual_out;  // of the row, or null
  T* norm_out;      // of the row
};

// A thread's part of the norm's weights, [hidden]. Few are loaded once for all rows, and on their
// way while the row is awaited; many would not fit into registers, and are loaded when needed.
template <bool kAligned, typename T, int kWords>
class RowWeights {
 public:
  static constexpr int kElements = kWordElements<T>;

  __device__ RowWeights(const float* weights, int64_t hidden, const RowTeam& team)
      : weights_(weights), hidden_(hidden) {
#pragma unroll
    for (int k = 0; k < kWords; ++k) {
      if constexpr (kHeld) {
        Load(team.Word(k), held_[k]);
      } else {
        const int64_t column = int64_t{team.Word(k)} * kElements;
        if (column < hidden) asm volatile("prefetch.global.L2 [%0];" : : "l"(weights + column));
      }
    }
  }

  // Those of the thread's k-th word, which is word `w` of the row.
  __device__ void Of(int k, int w, float (&to)[kElements]) const {
    if constexpr (kHeld) {
#pragma unroll
      for (int i = 0; i < kElements; ++i) to[i] = held_[k][i];
    } else {
      Load(w, to);
    }
  }

 private:
  static constexpr bool kHeld = kWords <= 2;

  __device__ void Load(int w, float (&to)[kElements]) const {
#pragma unroll
    for (int i = 0; i < kElements; i += 4) {
      const int64_t column = int64_t{w} * kElements + i;
      if (column >= hidden_) return;
      const uint4 four = LoadWord<kAligned>(weights_ + column, hidden_ - column);
      UnpackWord<float>(four, *reinterpret_cast<float(*)[4]>(&to[i]));
    }
  }

  const float* weights_;
  int64_t hidden_;
  float held_[kHeld ? kWords : 1][kElements];
};

// Collective in the team: stores residual[k], this thread's k-th word, and its norm.
template <bool kAligned, typename T, int kWords>
__device__ void NormaliseRow(const uint4 (&residual)[kWords], const RowTeam& team,
                             const RowNorm<T>& row, const RowWeights<kAligned, T, kWords>& weights,
                             RowSum& row_sum) {
  constexpr int kElements = kWordElements<T>;
  const int words = static_cast<int>(RowWords(row.hidden, sizeof(T)));
  float squares[kWords];
#pragma unroll
  for (int k = 0; k < kWords; ++k) {
    squares[k] = 0;
    if (team.Word(k) >= words) continue;
    const int64_t column = int64_t{team.Word(k)} * kElements;
    if (row.residual_out != nullptr) {
      StoreWord<kAligned>(residual[k], row.hidden - column, row.residual_out + column);
    }
    float values[kElements];
    UnpackWord<T>(residual[k], values);
#pragma unroll
    for (int i = 0; i < kElements; ++i) squares[k] = __fmaf_rn(values[i], values[i], squares[k]);
  }
  const float mean = row_sum.Of(squares, team, words) / static_cast<float>(row.hidden);
  const float scale = 1.0f / sqrtf(mean + row.eps);
#pragma unroll
  for (int k = 0; k < kWords; ++k) {
    if (team.Word(k) >= words) continue;
    const int64_t column = int64_t{team.Word(k)} * kElements;
    float values[kElements], weight[kElements];
    weights.Of(k, team.Word(k), weight);
    UnpackWord<T>(residual[k], values);
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      values[i] = __fmul_rn(__fmul_rn(values[i], scale), weight[i]);
    }
    StoreWord<kAligned>(PackWord<T>(values), row.hidden - column, row.norm_out + column);
  }
}

// As many as a thread may take of a row.
inline constexpr int kMostWords = 0;
template <typename T, int kWords>
using ThreadWords =
    std::integral_constant<int, kWords == kMostWords ? MaxThreadWords(sizeof(T)) : kWords>;

// Calls fn with whether rows are aligned and the words of a row that a thread takes, as integral
// constants.
template <typename Fn>
CudaLaunch WithRowShape(const RowGridPlan& plan, const Fn& fn) {
  using std::integral_constant;
  if (!plan.aligned) return fn(std::false_type{}, integral_constant<int, kMostWords>{});
  if (plan.words_per_thread == 1) return fn(std::true_type{}, integral_constant<int, 1>{});
  if (plan.words_per_thread == 2) return fn(std::true_type{}, integral_constant<int, 2>{});
  if (plan.words_per_thread == 4) return fn(std::true_type{}, integral_constant<int, 4>{});
  return fn(std::true_type{}, integral_constant<int, kMostWords>{});
}

template <auto kKernel, typename... Args>
CudaLaunch LaunchRows(const RowGridPlan& plan, CudaStream stream, const Args&... args) {
  cudaLaunchAttribute cluster{.id = cudaLaunchAttributeClusterDimension};
  cluster.val.clusterDim = {static_cast<unsigned>(plan.blocks_per_row), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(plan.teams * plan.blocks_per_row));
  config.blockDim = dim3(static_cast<unsigned>(plan.threads));
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = plan.blocks_per_row > 1 ? 1 : 0;
  return Launch<kKernel>(config, args...);
}

}  // namespace muster

#endif  // MUSTER_KERNELS_RMS_NORM_ROW_CUH_
