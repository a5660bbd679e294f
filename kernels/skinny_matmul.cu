#include <algorithm>
#include <type_traits>

#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/mma_sm80.cuh"
#include "kernels/skinny_matmul.h"

namespace muster {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kBlocks = 2;       // that a multiprocessor holds
constexpr int kMmaColumns = 16;  // rows of W that a warp multiplies at a time
constexpr int kMmaRows = 8;      // rows of x, likewise
constexpr int kChunk = 32;       // elements of k that a warp loads at once, 8 a lane
constexpr int kPieces = 8;       // chunks that follow each other: a warp's turn
constexpr int kTurn = kChunk * kPieces;

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

// Where a lane stands in the operands. An mma adds over k in any order that both operands share:
// here a lane holds 8 neighbours of k, so that it loads them as one piece of 16 bytes.
struct Lane {
  int group = threadIdx.x % 32 / 4;  // its row of W (and 8 further) and of x
  int piece = threadIdx.x % 4;       // its 8 elements of a chunk
};

// The turns of a warp at the k of every tile: `first` and every `step`th, up to element `end` of k,
// which is the same number of turns for all warps that share the tile's columns and may be beyond
// k.
struct Turns {
  int first;
  int step;
  int end;
};

// The weights of a warp's turns, tile after tile.
template <typename T>
class WeightStream {
 public:
  __device__ WeightStream(const SkinnyMatmulParams& params, int n, const Turns& turns, int column,
                          int column_step)
      : params_(params),
        k_(static_cast<int>(params.k)),
        n_(n),
        turns_(turns),
        column_(column + lane_.group),
        column_step_(column_step) {
    Aim();
  }

  // Rows `column` and `column` + 8 of W; zeros beyond their ends.
  __device__ void Next(uint4 (&w)[kPieces][2]) {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int k = at_ + piece * kChunk;
      w[piece][0] = LoadStreaming(low_ + k, k < k_ && column_ < n_);
      w[piece][1] = LoadStreaming(high_ + k, k < k_ && column_ + 8 < n_);
    }
    at_ += turns_.step * kTurn;
    if (at_ < turns_.end) return;
    column_ += column_step_;
    Aim();
  }

 private:
  __device__ void Aim() {
    at_ = turns_.first * kTurn + lane_.piece * 8;
    low_ = static_cast<const T*>(params_.weights) + column_ * params_.weights_row_stride;
    high_ = low_ + 8 * params_.weights_row_stride;
  }

  const SkinnyMatmulParams& params_;
  const int k_;
  const int n_;
  const Turns turns_;
  const Lane lane_;
  int column_;
  const int column_step_;
  int at_;  // of k
  const T* low_;
  const T* high_;
};

// A lane's pieces of x at its warp's turns, one after the other and from the first again; zeros in
// rows and columns that x has not.
template <typename T>
class XStream {
 public:
  __device__ XStream(const SkinnyMatmulParams& params, const Turns& turns)
      : k_(lane_.group < params.rows ? static_cast<int>(params.k) : 0),
        turns_(turns),
        x_(static_cast<const T*>(params.x) + lane_.group * params.x_row_stride) {
    Begin();
  }

  __device__ uint4 Get(int piece) const {
    const int k = at_ + piece * kChunk;
    return LoadCached(x_ + k, k < k_);
  }
  __device__ void Next() {
    at_ += turns_.step * kTurn;
    if (at_ >= turns_.end) Begin();
  }

 private:
  __device__ void Begin() { at_ = turns_.first * kTurn + lane_.piece * 8; }

  const Lane lane_;
  const int k_;  // that there are in its row
  const Turns turns_;
  const T* const x_;
  int at_;  // of k
};

// A warp's sums of a tile: 8 rows of y by 16 columns.
template <typename T>
class WarpSums {
 public:
  __device__ void Add(const uint4 (&w)[kPieces][2], const XStream<T>& x) {
    uint4 b[kPieces];
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) b[piece] = x.Get(piece);
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const uint4& low = w[piece][0];
      const uint4& high = w[piece][1];
      const uint32_t front[4] = {low.x, high.x, low.y, high.y};
      const uint32_t back[4] = {low.z, high.z, low.w, high.w};
      Mma<T>(sums_, front, b[piece].x, b[piece].y);
      Mma<T>(sums_, back, b[piece].z, b[piece].w);
    }
  }

  // Moves them to to[row][column], and starts again.
  template <int kColumns>
  __device__ void MoveTo(float (&to)[kMmaRows][kColumns], int column) {
    const Lane lane;
    const int row = 2 * lane.piece;
    to[row][column + lane.group] = sums_[0];
    to[row + 1][column + lane.group] = sums_[1];
    to[row][column + lane.group + 8] = sums_[2];
    to[row + 1][column + lane.group + 8] = sums_[3];
#pragma unroll
    for (float& sum : sums_) sum = 0;
  }

 private:
  float sums_[4] = {};
};

// Adds up what the warps that share columns left, in their order.
template <typename T, int kParts, int kColumns>
__device__ void StoreTile(const SkinnyMatmulParams& params, int n, int first_column,
                          const float (&sums)[kParts][kMmaRows][kColumns]) {
  const int elements = static_cast<int>(params.rows) * kColumns;
  for (int i = threadIdx.x; i < elements; i += kThreads) {
    const int row = i / kColumns;
    const int column = i % kColumns;
    float sum = 0;
#pragma unroll
    for (const auto& part : sums) sum += part[row][column];
    if (first_column + column < n) StoreY<T>(params, row, first_column + column, sum);
  }
}

// Each block computes a tile after the other, all of up to 8 rows of x by kColumnWarps * 16 rows of
// W, while the weights of the next are on their way. The warps that are not side by side take turns
// at k. Sums are kept twice: a warp that leaves those of the next tile knows that all have stored
// the one before.
template <typename T, int kColumnWarps>
__global__ void __launch_bounds__(kThreads, kBlocks)
    MultiplyTiles(const __grid_constant__ SkinnyMatmulParams params, int n, int turn_count) {
  constexpr int kColumns = kColumnWarps * kMmaColumns;
  constexpr int kParts = kWarps / kColumnWarps;
  __shared__ float sums[2][kParts][kMmaRows][kColumns];
  const int warp = threadIdx.x / 32;
  const int part = warp / kColumnWarps;
  const int warp_column = warp % kColumnWarps * kMmaColumns;
  const Turns turns{part, kParts, turn_count * kParts * kTurn};
  int column = static_cast<int>(blockIdx.x) * kColumns;
  const int column_step = static_cast<int>(gridDim.x) * kColumns;
  WeightStream<T> weights(params, n, turns, column + warp_column, column_step);
  uint4 w[kPieces][2];
  weights.Next(w);
  AwaitEarlierKernels();
  XStream<T> x(params, turns);
  WarpSums<T> warp_sums;
  int side = 0;
  for (; column < n; column += column_step, side ^= 1) {
    for (int turn = 0; turn < turn_count; ++turn) {
      warp_sums.Add(w, x);
      x.Next();
      weights.Next(w);
    }
    warp_sums.MoveTo(sums[side][part], warp_column);
    __syncthreads();
    StoreTile<T>(params, n, column, sums[side]);
  }
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
CudaLaunch LaunchColumns(const SkinnyMatmulParams& params, int64_t n, CudaStream stream) {
  const auto launch = [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    const dim3 grid(static_cast<unsigned>((n + kWarps - 1) / kWarps),
                    static_cast<unsigned>((params.rows + kRows - 1) / kRows));
    return Launch<MultiplyColumns<T, kVector, kRows>>(
        {.gridDim = grid, .blockDim = kThreads, .stream = stream}, params, n);
  };
  if (params.rows == 1) return launch(std::integral_constant<int, 1>{});
  if (params.rows <= 4) return launch(std::integral_constant<int, 4>{});
  return launch(std::integral_constant<int, 8>{});
}

int DivideUp(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

// Whether a kernel may begin before the one before it on its stream has ended. All devices of a
// process are alike.
bool MayBeginEarly() {
  static const bool may = [] {
    int device = 0;
    int major = 0;
    const bool known =
        cudaGetDevice(&device) == cudaSuccess &&
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess;
    return known && major >= 9;
  }();
  return may;
}

template <typename T, int kColumnWarps>
CudaLaunch LaunchTiles(const SkinnyMatmulParams& params, int64_t n, int multiprocessors,
                       CudaStream stream) {
  const int tiles = DivideUp(n, kColumnWarps * kMmaColumns);
  const int turn_count = DivideUp(params.k, kWarps / kColumnWarps * kTurn);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(std::min(tiles, kBlocks * multiprocessors));
  config.blockDim = kThreads;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = MayBeginEarly() ? 1 : 0;
  return Launch<MultiplyTiles<T, kColumnWarps>>(config, params, static_cast<int>(n), turn_count);
}

// Eight rows at a time, all in the same way.
template <typename T>
CudaLaunch LaunchRows(SkinnyMatmulParams params, int64_t n, int multiprocessors,
                      CudaStream stream) {
  const bool wide = DivideUp(n, 2 * kMmaColumns) >= multiprocessors;
  const int64_t y_bytes = params.y_row_stride * static_cast<int64_t>(SizeOf(params.y_dtype));
  for (int64_t left = params.rows; left > 0; left -= kMmaRows) {
    params.rows = std::min<int64_t>(left, kMmaRows);
    const CudaLaunch launch = wide ? LaunchTiles<T, 2>(params, n, multiprocessors, stream)
                                   : LaunchTiles<T, 1>(params, n, multiprocessors, stream);
    if (!launch.ok()) return launch;
    params.x = static_cast<const T*>(params.x) + kMmaRows * params.x_row_stride;
    params.y = static_cast<char*>(params.y) + kMmaRows * y_bytes;
  }
  return {};
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
        return LaunchColumns<T, kVector>(params, n, stream);
      }
    } else if (AreMultiples(params, kVectorElements)) {
      return LaunchRows<T>(params, n, multiprocessors, stream);
    }
    return LaunchColumns<T, 1>(params, n, stream);
  });
}

}  // namespace muster
