#include <cooperative_groups.h>
#include <cuda_pipeline.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "kernels/cuda_elements.cuh"
#include "kernels/mma_sm80.cuh"
#include "kernels/skinny_matmul.h"

namespace muster {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kMmaColumns = 16;  // rows of W that a warp multiplies at a time
constexpr int kMmaRows = 8;      // rows of x, likewise
constexpr int kChunk = 32;       // elements of k that a warp loads at once, 8 a lane
constexpr int kPieces = 4;       // chunks that follow each other: a warp's turn
constexpr int kTurn = kChunk * kPieces;
constexpr int kStages = 2;  // turns whose weights are in flight
constexpr int kSlots = 4;   // turns whose x is in shared memory or on its way there

template <typename T>
__device__ void StoreY(const SkinnyMatmulParams& params, int64_t row, int64_t column, float sum) {
  if (params.bias != nullptr) sum += params.bias[column];
  const int64_t at = row * params.y_row_stride + column;
  if (params.y_dtype == DType::kFloat32) {
    static_cast<float*>(params.y)[at] = sum;
  } else {
    static_cast<T*>(params.y)[at] = CudaElement<T>::FromFloat(sum);
  }
}

// 16 bytes that this block reads once, or zeros. Loads stay in the order of the program.
__device__ uint4 LoadStreaming(const void* from, bool present) {
  uint4 v = {0, 0, 0, 0};
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %5, 0;\n"
      "@p ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];\n"
      "}"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "l"(from), "r"(static_cast<int>(present)));
  return v;
}

// The same of what other warps read too.
__device__ uint4 LoadCached(const void* from, bool present) {
  uint4 v = {0, 0, 0, 0};
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %5, 0;\n"
      "@p ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n"
      "}"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "l"(from), "r"(static_cast<int>(present))
      : "memory");
  return v;
}

// Before this a kernel reads nothing that others before it on the stream write, and writes nothing.
__device__ void AwaitEarlierKernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The blocks that share a tile: a cluster, where the architecture has them, else one.
class Team {
 public:
#if __CUDA_ARCH__ >= 900
  __device__ int size() const { return static_cast<int>(cluster_.num_blocks()); }
  __device__ int rank() const { return static_cast<int>(cluster_.block_rank()); }
  __device__ void Synchronize() {
    if (size() == 1) {
      __syncthreads();
    } else {
      cluster_.sync();
    }
  }
  template <typename V>
  __device__ const V& Of(int block, V& mine) const {
    return *cluster_.map_shared_rank(&mine, block);
  }

 private:
  cooperative_groups::cluster_group cluster_ = cooperative_groups::this_cluster();
#else
  __device__ int size() const { return 1; }
  __device__ int rank() const { return 0; }
  __device__ void Synchronize() { __syncthreads(); }
  template <typename V>
  __device__ const V& Of(int, V& mine) const {
    return mine;
  }
#endif
};

// Where a lane stands in the operands. An mma adds over k in any order that both operands share:
// here a lane holds 8 neighbours of k, so that it loads them as one piece of 16 bytes.
struct Lane {
  int group = threadIdx.x % 32 / 4;  // its row of W (and 8 further) and of x
  int piece = threadIdx.x % 4;       // its 8 elements of a chunk
};

// The turns of a warp at the k of every tile.
struct Turns {
  int first;
  int step;   // the turns of all warps that share the tile's columns
  int count;  // the same for all of them: the last may lie beyond k

  __device__ int K(int turn) const { return (first + turn * step) * kTurn; }
};

// The weights of a warp's turns, tile after tile.
template <typename T>
class WeightStream {
 public:
  __device__ WeightStream(const SkinnyMatmulParams& params, int64_t n, const Turns& turns,
                          int64_t column, int64_t column_step)
      : params_(params), n_(n), turns_(turns), column_(column), column_step_(column_step) {
    Aim();
  }

  // Rows `column` and `column` + 8 of W; zeros beyond their ends.
  __device__ void Next(uint4 (&w)[kPieces][2]) {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int k = turns_.K(turn_) + piece * kChunk + lane_.piece * 8;
      w[piece][0] = LoadStreaming(low_ + k, k < params_.k && column_ < n_);
      w[piece][1] = LoadStreaming(high_ + k, k < params_.k && column_ + 8 < n_);
    }
    if (++turn_ < turns_.count) return;
    turn_ = 0;
    column_ += column_step_;
    Aim();
  }

 private:
  __device__ void Aim() {
    low_ = static_cast<const T*>(params_.weights) + column_ * params_.weights_row_stride;
    high_ = low_ + 8 * params_.weights_row_stride;
  }

  const SkinnyMatmulParams& params_;
  const int64_t n_;
  const Turns turns_;
  const Lane lane_;
  int64_t column_;
  const int64_t column_step_;
  int turn_ = 0;
  const T* low_;
  const T* high_;
};

// A lane's pieces of x at its warp's turns, one after the other and from the first again: read
// where they are.
template <typename T>
class DirectX {
 public:
  static constexpr int kRowTiles = 1;
  static constexpr int kSharedBytes = 0;

  __device__ DirectX(const SkinnyMatmulParams& params, const Turns& turns, int)
      : k_(static_cast<int>(params.k)), present_(lane_.group < params.rows), turns_(turns) {
    x_ = static_cast<const T*>(params.x) + lane_.group * params.x_row_stride;
  }

  // All threads of the block take each turn together.
  __device__ void Next() { turn_ = turn_ + 1 < turns_.count ? turn_ + 1 : 0; }
  __device__ uint4 Get(int piece, int) const {
    const int k = turns_.K(turn_) + piece * kChunk + lane_.piece * 8;
    return LoadCached(x_ + k, present_ && k < k_);
  }

 private:
  const Lane lane_;
  const int k_;
  const bool present_;
  const Turns turns_;
  const T* x_;
  int turn_ = -1;
};

// The same from shared memory, to which the block copies what all its warps need some turns ahead,
// in the order in which they read it.
template <typename T, int kTiles, int kParts>
class SharedX {
 public:
  static constexpr int kRowTiles = kTiles;
  static constexpr int kTurnUnits = kParts * kPieces * kTiles * 32;  // of 16 bytes, of a block
  static constexpr int kSharedBytes = kSlots * kTurnUnits * static_cast<int>(sizeof(uint4));

  // `part` of kParts is this warp's.
  __device__ SharedX(const SkinnyMatmulParams& params, const Turns& turns, int part)
      : params_(params),
        turns_(turns),
        block_first_(turns.first - part),
        mine_(part * kPieces * kTiles * 32 + threadIdx.x % 32) {
    for (int turn = 0; turn < kSlots - 1; ++turn) Copy();
  }

  __device__ void Next() {
    __pipeline_wait_prior(kSlots - 2);
    __syncthreads();
    Copy();
    slot_ = (slot_ + 1) % kSlots;
  }
  __device__ uint4 Get(int piece, int tile) const {
    return Shared()[slot_ * kTurnUnits + mine_ + (piece * kTiles + tile) * 32];
  }

 private:
  __device__ static uint4* Shared() {
    extern __shared__ uint4 shared_x[];
    return shared_x;
  }

  // Of the next turn, to the next slot.
  __device__ void Copy() {
    uint4* const slot = Shared() + copy_slot_ * kTurnUnits;
    const int first = block_first_ + copy_turn_ * turns_.step;
#pragma unroll
    for (int unit = threadIdx.x; unit < kTurnUnits; unit += kThreads) {
      const int row = unit / 32 % kTiles * kMmaRows + unit % 32 / 4;
      const int chunk = unit / 32 / kTiles;
      const int k = (first + chunk / kPieces) * kTurn + chunk % kPieces * kChunk + unit % 4 * 8;
      const bool present = k < params_.k && row < params_.rows;
      const T* const x = static_cast<const T*>(params_.x);
      __pipeline_memcpy_async(slot + unit, x + (present ? row * params_.x_row_stride + k : 0),
                              sizeof(uint4), present ? 0 : sizeof(uint4));
    }
    __pipeline_commit();
    copy_slot_ = (copy_slot_ + 1) % kSlots;
    copy_turn_ = copy_turn_ + 1 < turns_.count ? copy_turn_ + 1 : 0;
  }

  const SkinnyMatmulParams& params_;
  const Turns turns_;
  const int block_first_;  // the first turn of its first warp
  const int mine_;
  int copy_turn_ = 0;
  int copy_slot_ = 0;
  int slot_ = kSlots - 1;
};

// A warp's sums of a tile: 16 columns of y by kRowTiles * 8 rows.
template <typename T, int kRowTiles>
class WarpSums {
 public:
  template <typename X>
  __device__ void Add(const uint4 (&w)[kPieces][2], const X& x) {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const uint4& low = w[piece][0];
      const uint4& high = w[piece][1];
      const uint32_t front[4] = {low.x, high.x, low.y, high.y};
      const uint32_t back[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        const uint4 b = x.Get(piece, tile);
        Mma<T>(sums_[tile], front, b.x, b.y);
        Mma<T>(sums_[tile], back, b.z, b.w);
      }
    }
  }

  // Moves them to to[row][column], and starts again.
  template <int kColumns>
  __device__ void MoveTo(float (*to)[kColumns], int column) {
    const Lane lane;
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      const int row = tile * kMmaRows + 2 * lane.piece;
      to[row][column + lane.group] = sums_[tile][0];
      to[row + 1][column + lane.group] = sums_[tile][1];
      to[row][column + lane.group + 8] = sums_[tile][2];
      to[row + 1][column + lane.group + 8] = sums_[tile][3];
#pragma unroll
      for (float& sum : sums_[tile]) sum = 0;
    }
  }

 private:
  float sums_[kRowTiles][4] = {};
};

// Sums of the warps of a block that share columns, added up by the team in the order of its blocks
// and of their warps.
template <int kRows, int kColumns>
struct TileSums {
  static constexpr int kParts = kWarps * kMmaColumns / kColumns;
  float sums[kParts][kRows][kColumns];
};

template <typename T, int kRows, int kColumns>
__device__ void StoreTile(const SkinnyMatmulParams& params, int64_t n, int64_t first_column,
                          const Team& team, TileSums<kRows, kColumns>& mine) {
  const int elements = static_cast<int>(params.rows) * kColumns;
  const int team_threads = team.size() * kThreads;
  for (int i = team.rank() * kThreads + threadIdx.x; i < elements; i += team_threads) {
    const int row = i / kColumns;
    const int column = i % kColumns;
    float sum = 0;
    for (int block = 0; block < team.size(); ++block) {
      const TileSums<kRows, kColumns>& theirs = team.Of(block, mine);
#pragma unroll
      for (const auto& part : theirs.sums) sum += part[row][column];
    }
    if (first_column + column < n) StoreY<T>(params, row, first_column + column, sum);
  }
}

// Teams compute a tile after the other, X::kRowTiles * 8 rows of x by kColumnWarps * 16 of W. The
// warps that are not side by side take turns at k. Sums are kept twice: a warp that leaves those of
// the next tile knows that all have stored the one before.
template <typename T, typename X, int kColumnWarps>
__global__ void __launch_bounds__(kThreads, 2)
    MultiplyTiles(const __grid_constant__ SkinnyMatmulParams params, int64_t n, int turn_count) {
  constexpr int kColumns = kColumnWarps * kMmaColumns;
  constexpr int kParts = kWarps / kColumnWarps;
  __shared__ TileSums<X::kRowTiles * kMmaRows, kColumns> sums[2];
  Team team;
  const int warp = threadIdx.x / 32;
  const int part = warp / kColumnWarps;
  const int warp_column = warp % kColumnWarps * kMmaColumns;
  const Turns turns{team.rank() * kParts + part, team.size() * kParts, turn_count};
  int64_t column = int64_t{blockIdx.x} / team.size() * kColumns;
  const int64_t column_step = int64_t{gridDim.x} / team.size() * kColumns;
  WeightStream<T> weights(params, n, turns, column + warp_column + Lane().group, column_step);
  uint4 w[kStages][kPieces][2];
#pragma unroll
  for (auto& stage : w) weights.Next(stage);
  AwaitEarlierKernels();
  X x(params, turns, part);
  WarpSums<T, X::kRowTiles> warp_sums;
  int turn = 0;
  int side = 0;
  while (column < n) {
#pragma unroll
    for (auto& stage : w) {
      if (column >= n) break;
      x.Next();
      warp_sums.Add(stage, x);
      weights.Next(stage);
      if (++turn < turn_count) continue;
      warp_sums.MoveTo(sums[side].sums[part], warp_column);
      team.Synchronize();
      StoreTile<T>(params, n, column, team, sums[side]);
      turn = 0;
      side ^= 1;
      column += column_step;
    }
  }
  if (team.size() > 1) team.Synchronize();
}

// A warp computes a column for kRows rows, its lanes kVector neighbours of k at a time.
template <typename T, int kVector, int kRows>
__global__ void __launch_bounds__(kThreads)
    MultiplyColumns(const __grid_constant__ SkinnyMatmulParams params, int64_t n) {
  const int64_t column = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int64_t first_row = int64_t{blockIdx.y} * kRows;
  const int lane = threadIdx.x % 32;
  if (column >= n) return;
  const T* w = static_cast<const T*>(params.weights) + column * params.weights_row_stride;
  const T* x = static_cast<const T*>(params.x);
  float sums[kRows] = {};
#pragma unroll 4
  for (int64_t k = lane * kVector; k < params.k; k += 32 * kVector) {
    float weights[kVector];
    LoadFloats(w + k, weights);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      float values[kVector];
      LoadFloats(x + min(first_row + row, params.rows - 1) * params.x_row_stride + k, values);
#pragma unroll
      for (int i = 0; i < kVector; ++i) sums[row] = fmaf(weights[i], values[i], sums[row]);
    }
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    for (int apart = 16; apart > 0; apart /= 2) {
      sums[row] += __shfl_xor_sync(0xFFFFFFFFu, sums[row], apart);
    }
    if (lane == 0 && first_row + row < params.rows) {
      StoreY<T>(params, first_row + row, column, sums[row]);
    }
  }
}

bool AreMultiples(const SkinnyMatmulParams& params, int64_t elements) {
  const auto fits = [&](const void* pointer, int64_t stride) {
    const auto bytes = static_cast<int64_t>(SizeOf(params.dtype)) * elements;
    return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0 &&
           stride % elements == 0;
  };
  return params.k % elements == 0 && fits(params.x, params.x_row_stride) &&
         fits(params.weights, params.weights_row_stride);
}

template <typename T, int kVector>
void LaunchColumns(const SkinnyMatmulParams& params, int64_t n, CudaStream stream) {
  const auto grid = [&](int64_t rows) {
    return dim3(static_cast<unsigned>((n + kWarps - 1) / kWarps),
                static_cast<unsigned>((params.rows + rows - 1) / rows));
  };
  if (params.rows == 1) {
    MultiplyColumns<T, kVector, 1><<<grid(1), kThreads, 0, stream>>>(params, n);
  } else if (params.rows <= 4) {
    MultiplyColumns<T, kVector, 4><<<grid(4), kThreads, 0, stream>>>(params, n);
  } else {
    MultiplyColumns<T, kVector, 8><<<grid(8), kThreads, 0, stream>>>(params, n);
  }
}

// How a product is shared out.
struct Plan {
  int column_warps;  // of a block
  int splits;        // blocks of a team
  int teams;
  int turns;  // of a warp, in a tile
};

constexpr int kBlocks = 2;     // that a multiprocessor holds
constexpr int kMaxSplits = 4;  // larger clusters leave multiprocessors empty

int DivideUp(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

// Clusters, and kernels that begin before the one before them has ended. All devices of a process
// are alike.
bool HasClusters() {
  static const bool has = [] {
    int device = 0;
    int major = 0;
    const bool known =
        cudaGetDevice(&device) == cudaSuccess &&
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess;
    return known && major >= 9;
  }();
  return has;
}

Plan PlanOf(int column_warps, int splits, int64_t n, int64_t k, int multiprocessors) {
  const int parts = kWarps / column_warps;
  Plan plan{.column_warps = column_warps, .splits = splits};
  plan.turns = DivideUp(DivideUp(k, kTurn), splits * parts);
  plan.teams = std::min(DivideUp(n, column_warps * kMmaColumns),
                        std::max(1, kBlocks * multiprocessors / splits));
  return plan;
}

// About proportional to the time it takes: the turns of the busiest block, by how many blocks share
// a multiprocessor; what teams and narrow blocks lose was measured.
double CostOf(const Plan& plan, int row_tiles, int64_t n, int multiprocessors) {
  const int tiles = DivideUp(n, plan.column_warps * kMmaColumns);
  const double turns = static_cast<double>(DivideUp(tiles, plan.teams)) * plan.turns;
  const double shared_by = static_cast<double>(plan.teams * plan.splits) / multiprocessors;
  const double x_per_weight = row_tiles == 1 ? 0 : 0.5 * row_tiles / plan.column_warps;
  return turns * std::max(1.0, shared_by) * (1 + 0.35 * (plan.splits - 1)) *
         (1 + 0.3 * x_per_weight);
}

// Depends on rows by row_tiles only.
Plan ChoosePlan(int row_tiles, int64_t n, int64_t k, int multiprocessors) {
  const int max_splits = HasClusters() ? kMaxSplits : 1;
  Plan best{};
  double least = std::numeric_limits<double>::infinity();
  for (int column_warps = row_tiles; column_warps <= 2 * row_tiles; column_warps *= 2) {
    for (int splits = 1; splits <= max_splits; splits *= 2) {
      const Plan plan = PlanOf(column_warps, splits, n, k, multiprocessors);
      const double cost = CostOf(plan, row_tiles, n, multiprocessors);
      if (cost >= least) continue;
      best = plan;
      least = cost;
    }
  }
  return best;
}

template <typename T, typename X, int kColumnWarps>
cudaError_t LaunchTiles(const SkinnyMatmulParams& params, int64_t n, const Plan& plan,
                        CudaStream stream) {
  const auto kernel = MultiplyTiles<T, X, kColumnWarps>;
  const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, X::kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(plan.splits), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(plan.teams * plan.splits);
  config.blockDim = kThreads;
  config.dynamicSmemBytes = X::kSharedBytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = plan.splits > 1 ? 2 : HasClusters() ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, params, n, plan.turns);
}

template <typename T, int kRowTiles, int kColumnWarps>
cudaError_t LaunchSharedX(const SkinnyMatmulParams& params, int64_t n, const Plan& plan,
                          CudaStream stream) {
  using X = SharedX<T, kRowTiles, kWarps / kColumnWarps>;
  return LaunchTiles<T, X, kColumnWarps>(params, n, plan, stream);
}

template <typename T>
cudaError_t LaunchPlan(const SkinnyMatmulParams& params, int64_t n, int row_tiles, const Plan& plan,
                       CudaStream stream) {
  const bool wide = plan.column_warps > row_tiles;
  switch (row_tiles) {
    case 1:
      return wide ? LaunchTiles<T, DirectX<T>, 2>(params, n, plan, stream)
                  : LaunchTiles<T, DirectX<T>, 1>(params, n, plan, stream);
    case 2:
      return wide ? LaunchSharedX<T, 2, 4>(params, n, plan, stream)
                  : LaunchSharedX<T, 2, 2>(params, n, plan, stream);
    default:
      return wide ? LaunchSharedX<T, 4, 8>(params, n, plan, stream)
                  : LaunchSharedX<T, 4, 4>(params, n, plan, stream);
  }
}

template <typename T>
cudaError_t LaunchRows(SkinnyMatmulParams params, int64_t n, int multiprocessors,
                       CudaStream stream) {
  const int row_tiles = params.rows <= 8 ? 1 : params.rows <= 16 ? 2 : 4;
  const Plan plan = ChoosePlan(row_tiles, n, params.k, multiprocessors);
  const int64_t step = row_tiles * kMmaRows;
  const int64_t y_bytes = params.y_row_stride * static_cast<int64_t>(SizeOf(params.y_dtype));
  for (int64_t left = params.rows; left > 0; left -= step) {
    params.rows = std::min(left, step);
    const cudaError_t error = LaunchPlan<T>(params, n, row_tiles, plan, stream);
    if (error != cudaSuccess) return error;
    params.x = static_cast<const T*>(params.x) + step * params.x_row_stride;
    params.y = static_cast<char*>(params.y) + step * y_bytes;
  }
  return cudaSuccess;
}

}  // namespace

CudaLaunch SkinnyMatmulCuda(const SkinnyMatmulParams& params, int64_t n, int multiprocessors,
                            CudaStream stream) {
  const bool y_fits = params.y_dtype == DType::kFloat32 || params.y_dtype == params.dtype;
  if (params.x_dtype != params.dtype || !y_fits) return {cudaErrorInvalidValue};
  if (params.rows == 0 || n == 0) return {};
  return WithElementType(params.dtype, [&](auto element) {
    using T = decltype(element);
    if constexpr (std::is_same_v<T, float>) {
      constexpr int kVector = 4;
      if (AreMultiples(params, kVector)) {
        LaunchColumns<T, kVector>(params, n, stream);
        return LaunchResult();
      }
    } else if (AreMultiples(params, kVectorElements)) {
      return CudaLaunch{LaunchRows<T>(params, n, multiprocessors, stream)};
    }
    LaunchColumns<T, 1>(params, n, stream);
    return LaunchResult();
  });
}

}  // namespace muster
