#include <algorithm>
#include <cfloat>

#include "kernels/block_select.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/shard_top_k.h"

namespace muster {
namespace {

// A block looks at a slice of a shard's logits; one more block per shard merges what they found.
constexpr int kSliceThreads = 256;
constexpr int kSliceValues = 16;  // of a thread
constexpr int kSlice = kSliceThreads * kSliceValues;
constexpr int kMergeThreads = 1024;

struct SliceSummary {
  double sum;  // relative to `max`
  double sum_tempered;
  float max;
  int count;
  int invalid_count;
};

struct Shards {
  ShardTopKParams params[kMaxCudaShards];
  SliceSummary* summaries;  // [count, slices]
  ShardDraw* draws;         // [count, slices]
  Key* keys;                // [count, slices, k]: each slice's best in any order, then zeros
  int slices;               // of the longest shard
  int k;                    // the largest
};

__device__ bool IsInvalid(float logit) { return !(logit < INFINITY); }

// exp((logit - max) * scale), rounded as float32 but not hurt by rounding the exponent.
__device__ float Weight(float logit, float max, float scale) {
  const float below = logit - max;
  const float back = below - logit;
  const float below_rest = (logit - (below - back)) - (max + back);
  const float power = below * scale;
  if (!(power >= -104.0f)) return power < 0 ? 0 : power;
  const float power_rest = fmaf(below, scale, -power) + below_rest * scale;
  const float weight = expf(power);
  return fmaf(weight, power_rest, weight);
}

// Added up as a tree.
__device__ double SumOf(float (&values)[kSliceValues]) {
#pragma unroll
  for (int half = kSliceValues / 2; half > 0; half /= 2) {
#pragma unroll
    for (int i = 0; i < half; ++i) values[i] += values[i + half];
  }
  return values[0];
}

__device__ SliceSummary Summarize(const float (&logits)[kSliceValues], float inverse_temperature) {
  __shared__ float maxima[kSliceThreads / 32];
  __shared__ int counts[2][kSliceThreads / 32];
  __shared__ double sums[2][kSliceThreads / 32];
  SliceSummary summary{0, 0, -INFINITY, 0, 0};
#pragma unroll
  for (int i = 0; i < kSliceValues; ++i) {
    summary.count += IsCandidate(logits[i]);
    summary.invalid_count += IsInvalid(logits[i]);
    if (IsCandidate(logits[i])) summary.max = fmaxf(summary.max, logits[i]);
  }
  const auto larger = [](float a, float b) { return fmaxf(a, b); };
  summary.max = Combine(summary.max, maxima, larger);
  const auto sum_of = [&](float scale) {
    float weights[kSliceValues];
#pragma unroll
    for (int i = 0; i < kSliceValues; ++i) {
      weights[i] = IsCandidate(logits[i]) ? Weight(logits[i], summary.max, scale) : 0;
    }
    return SumOf(weights);
  };
  summary.sum = sum_of(1);
  summary.sum_tempered = inverse_temperature == 1 ? summary.sum : sum_of(inverse_temperature);
  summary.count = Combine(summary.count, counts[0], Sum<int>());
  summary.invalid_count = Combine(summary.invalid_count, counts[1], Sum<int>());
  summary.sum = Combine(summary.sum, sums[0], Sum<double>());
  summary.sum_tempered = Combine(summary.sum_tempered, sums[1], Sum<double>());
  return summary;
}

__global__ void __launch_bounds__(kSliceThreads, 4)
    SearchSlices(const __grid_constant__ Shards all) {
  const ShardTopKParams& params = all.params[blockIdx.y];
  const int64_t slice = int64_t{blockIdx.y} * all.slices + blockIdx.x;
  const int64_t first = int64_t{blockIdx.x} * kSlice + threadIdx.x;
  float logits[kSliceValues];
#pragma unroll
  for (int i = 0; i < kSliceValues; ++i) {
    const int64_t index = first + i * kSliceThreads;
    logits[i] = index < params.vocab_local ? params.logits[index] : -INFINITY;
  }
  const SliceSummary summary = Summarize(logits, params.inverse_temperature);
  if (threadIdx.x == 0) all.summaries[slice] = summary;
  Key keys[kSliceValues];
#pragma unroll
  for (int i = 0; i < kSliceValues; ++i) {
    const int64_t id = params.vocab_begin + first + i * kSliceThreads;
    keys[i] = KeyOf(logits[i], static_cast<int32_t>(id));
  }
  Key* const best = all.keys + slice * all.k;
  const int kept = KeepBest(keys, static_cast<int>(params.k), best);
  for (int i = kept + threadIdx.x; i < all.k; i += kSliceThreads) best[i] = 0;
}

__device__ ShardDraw NoDraw() { return {-INFINITY, -1, -INFINITY}; }

struct Winner {
  __device__ ShardDraw operator()(const ShardDraw& a, const ShardDraw& b) const {
    return Wins(b, a) ? b : a;
  }
};

// What the score of a candidate is at most, as gumbel_noise.h says; infinity where nothing is
// known. -infinity for what is no candidate.
__device__ float BoundOfScore(const ShardTopKParams& params, float logit, int32_t id) {
  if (!IsCandidate(logit)) return -INFINITY;
  const uint32_t n = ~DrawWords(params.key, id)[0];
  if (n == 0) return INFINITY;
  const float x = logit * params.inverse_temperature;
  const float bound = fmaf(fabsf(x), kDrawRounding, x) - __logf(static_cast<float>(n) * 0x1p-32f);
  return isnan(bound) ? INFINITY : bound;
}

// Bounds below this are of tokens that do not reach `score`.
__device__ float CutoffOf(double score) {
  const float rounded = fminf(__double2float_rd(score), FLT_MAX);
  return rounded - fabsf(rounded) * kDrawRounding - kDrawSlack;
}

// Token `index` as it takes part in the draw.
__device__ ShardDraw Drawn(const ShardTopKParams& params, int64_t index) {
  const float logit = params.logits[index];
  const int32_t id = static_cast<int32_t>(params.vocab_begin + index);
  const double noise = -log(-log(DrawUniform(params.key, id)));
  const double tempered = static_cast<double>(logit) * params.inverse_temperature;
  return {tempered + noise, id, logit};
}

// Each block draws from a slice: those with the highest bound first, then whatever else could still
// win.
__global__ void __launch_bounds__(kSliceThreads)
    DrawFromSlices(const __grid_constant__ Shards all) {
  __shared__ float highest_bounds[kSliceThreads / 32];
  __shared__ ShardDraw winners[2][kSliceThreads / 32];
  const ShardTopKParams& params = all.params[blockIdx.y];
  if (params.draw == nullptr) return;
  const int64_t first = int64_t{blockIdx.x} * kSlice + threadIdx.x;
  float bounds[kSliceValues];
  float bound = -INFINITY;
  int64_t index = first;  // of a token with that bound
#pragma unroll
  for (int i = 0; i < kSliceValues; ++i) {
    const int64_t here = first + i * kSliceThreads;
    const float logit = here < params.vocab_local ? params.logits[here] : -INFINITY;
    bounds[i] = BoundOfScore(params, logit, static_cast<int32_t>(params.vocab_begin + here));
    if (bounds[i] > bound) {
      bound = bounds[i];
      index = here;
    }
  }
  const auto larger = [](float a, float b) { return fmaxf(a, b); };
  const float highest = Combine(bound, highest_bounds, larger);
  ShardDraw best = NoDraw();
  if (bound == highest && highest > -INFINITY) best = Drawn(params, index);
  best = Combine(best, winners[0], Winner());
  const float cutoff = CutoffOf(best.score);
  unsigned left = 0;
#pragma unroll
  for (int i = 0; i < kSliceValues; ++i) {
    if (bounds[i] > -INFINITY && bounds[i] >= cutoff) left |= 1u << i;
  }
  for (; left != 0; left &= left - 1) {
    best = Winner()(best, Drawn(params, first + (__ffs(left) - 1) * kSliceThreads));
  }
  best = Combine(best, winners[1], Winner());
  if (threadIdx.x == 0) all.draws[int64_t{blockIdx.y} * all.slices + blockIdx.x] = best;
}

// By the lanes of a warp, each of every 32nd slice.
__device__ ShardDraw MergeDrawsOf(const ShardDraw* slices, int count) {
  ShardDraw best = NoDraw();
  for (int i = static_cast<int>(threadIdx.x) % 32; i < count; i += 32) {
    best = Winner()(best, slices[i]);
  }
  for (int apart = 16; apart > 0; apart /= 2) best = Winner()(best, FromLane(best, apart));
  return best;
}

// By the lanes of a warp, each of every 32nd slice.
__device__ LogitSummary MergeSlices(const SliceSummary* slices, int count,
                                    float inverse_temperature) {
  LogitSummary merged{-INFINITY, 0, 0, 0, 0};
  const int lane = threadIdx.x % 32;
  for (int i = lane; i < count; i += 32) {
    merged.max = fmaxf(merged.max, slices[i].max);
    merged.count += slices[i].count;
    merged.invalid_count += slices[i].invalid_count;
  }
  for (int apart = 16; apart > 0; apart /= 2) {
    merged.max = fmaxf(merged.max, __shfl_xor_sync(kAllLanes, merged.max, apart));
  }
  for (int i = lane; i < count; i += 32) {
    if (slices[i].count == 0) continue;
    const double below = static_cast<double>(slices[i].max) - merged.max;
    merged.sum += slices[i].sum * exp(below);
    merged.sum_tempered += slices[i].sum_tempered * exp(below * inverse_temperature);
  }
  for (int apart = 16; apart > 0; apart /= 2) {
    merged.sum += __shfl_xor_sync(kAllLanes, merged.sum, apart);
    merged.sum_tempered += __shfl_xor_sync(kAllLanes, merged.sum_tempered, apart);
    merged.count += __shfl_xor_sync(kAllLanes, merged.count, apart);
    merged.invalid_count += __shfl_xor_sync(kAllLanes, merged.invalid_count, apart);
  }
  return merged;
}

// Puts `count` keys at their places: as many threads as fit work on one.
__device__ void WriteInOrder(const Key* keys, int count, const ShardTopKParams& params) {
  constexpr int kThreadsPerKey = kMergeThreads / kMaxCudaCandidates;
  const int mine = static_cast<int>(threadIdx.x) / kThreadsPerKey;
  const int part = static_cast<int>(threadIdx.x) % kThreadsPerKey;
  const Key key = mine < count ? keys[mine] : 0;
  int place = 0;
  for (int i = part; i < count; i += kThreadsPerKey) place += keys[i] > key;
  for (int apart = kThreadsPerKey / 2; apart > 0; apart /= 2) {
    place += __shfl_xor_sync(kAllLanes, place, apart);
  }
  if (part != 0 || mine >= count) return;
  const int32_t id = IdOf(key);
  params.candidates[place] = {id, params.logits[id - params.vocab_begin]};
}

template <int kValues>
__global__ void __launch_bounds__(kMergeThreads) MergeShards(const __grid_constant__ Shards all) {
  __shared__ Key best[kMaxCudaCandidates];
  const ShardTopKParams& params = all.params[blockIdx.x];
  const int count = all.slices * all.k;
  const Key* found = all.keys + int64_t{blockIdx.x} * count;
  Key keys[kValues];
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    const int index = i * kMergeThreads + static_cast<int>(threadIdx.x);
    keys[i] = index < count ? found[index] : 0;
  }
  const int kept = KeepBest(keys, static_cast<int>(params.k), best);
  __syncthreads();
  WriteInOrder(best, kept, params);
  if (threadIdx.x >= 32) return;
  const LogitSummary summary =
      MergeSlices(all.summaries + blockIdx.x * all.slices, all.slices, params.inverse_temperature);
  ShardDraw draw = NoDraw();
  if (params.draw != nullptr) {
    draw = MergeDrawsOf(all.draws + blockIdx.x * all.slices, all.slices);
  }
  if (threadIdx.x != 0) return;
  if (params.draw != nullptr) *params.draw = draw;
  *params.candidate_count = kept;
  *params.summary = summary;
}

int64_t SlicesOf(int64_t vocab) { return std::max<int64_t>(1, (vocab + kSlice - 1) / kSlice); }

static_assert(kMaxCudaShardVocab / kSlice * kMaxCudaCandidates == 16 * kMergeThreads,
              "what slices may find is what a merging block holds");

}  // namespace

int64_t ShardTopKScratchBytes(int count, int64_t vocab_local, int64_t k) {
  const auto bytes =
      static_cast<int64_t>(sizeof(SliceSummary) + sizeof(ShardDraw)) + k * int64_t{sizeof(Key)};
  return count * SlicesOf(vocab_local) * bytes;
}

CudaLaunch ShardTopKCuda(const ShardTopKParams* shards, int count, void* scratch,
                         CudaStream stream) {
  if (count == 0) return {};
  if (count > kMaxCudaShards) return {cudaErrorInvalidValue};
  Shards all{};
  bool draws = false;
  for (int i = 0; i < count; ++i) {
    if (shards[i].vocab_local > kMaxCudaShardVocab) return {cudaErrorInvalidValue};
    if (shards[i].k > kMaxCudaCandidates) return {cudaErrorInvalidValue};
    all.params[i] = shards[i];
    draws |= shards[i].draw != nullptr;
    all.slices = std::max(all.slices, static_cast<int>(SlicesOf(shards[i].vocab_local)));
    all.k = std::max(all.k, static_cast<int>(shards[i].k));
  }
  all.summaries = static_cast<SliceSummary*>(scratch);
  all.draws = reinterpret_cast<ShardDraw*>(all.summaries + int64_t{count} * all.slices);
  all.keys = reinterpret_cast<Key*>(all.draws + int64_t{count} * all.slices);
  const dim3 slices(static_cast<unsigned>(all.slices), static_cast<unsigned>(count));
  const cudaLaunchConfig_t by_slice{.gridDim = slices, .blockDim = kSliceThreads, .stream = stream};
  CudaLaunch launch = Launch<SearchSlices>(by_slice, all);
  if (launch.ok() && draws) launch = Launch<DrawFromSlices>(by_slice, all);
  if (!launch.ok()) return launch;
  const cudaLaunchConfig_t by_shard{.gridDim = count, .blockDim = kMergeThreads, .stream = stream};
  const int found = all.slices * all.k;
  if (found <= 2 * kMergeThreads) return Launch<MergeShards<2>>(by_shard, all);
  if (found <= 8 * kMergeThreads) return Launch<MergeShards<8>>(by_shard, all);
  return Launch<MergeShards<16>>(by_shard, all);
}

}  // namespace muster
