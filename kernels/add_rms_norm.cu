#include "kernels/add_rms_norm.h"
#include "kernels/rms_norm_row.cuh"

namespace muster {
namespace {

constexpr int kThreads = 512;

template <typename T, bool kAligned, int kWords>
__global__ void __launch_bounds__(kThreads, 1)
    AddRmsNormKernel(const __grid_constant__ AddRmsNormParams params, int64_t rows) {
  const RowTeam team = RowTeam::Own();
  RowSum row_sum(team);
  const RowWeights<kAligned, T, kWords> weights(params.weight, params.hidden, team);
  for (int64_t row = team.index; row < rows; row += team.teams) {
    const int64_t offset = row * params.hidden;
    uint4 residual[kWords];
#pragma unroll
    for (int k = 0; k < kWords; ++k) {
      const int64_t column = int64_t{team.Word(k)} * kWordElements<T>;
      const int64_t count = params.hidden - column;
      if (count <= 0) continue;
      residual[k] = LoadWord<kAligned>(static_cast<const T*>(params.a) + offset + column, count);
      if (params.residual_in == nullptr) continue;
      float sum[kWordElements<T>], added[kWordElements<T>];
      UnpackWord<T>(residual[k], sum);
      UnpackWord<T>(
          LoadWord<kAligned>(static_cast<const T*>(params.residual_in) + offset + column, count),
          added);
#pragma unroll
      for (int i = 0; i < kWordElements<T>; ++i) sum[i] = __fadd_rn(sum[i], added[i]);
      residual[k] = PackWord<T>(sum);
    }
    T* residual_out = static_cast<T*>(params.residual_out);
    NormaliseRow<kAligned, T, kWords>(
        residual, team,
        {.eps = params.eps,
         .hidden = params.hidden,
         .residual_out = residual_out == nullptr ? nullptr : residual_out + offset,
         .norm_out = static_cast<T*>(params.out) + offset},
        weights, row_sum);
  }
}

bool IsAligned(const AddRmsNormParams& params) {
  return params.hidden * SizeOf(params.activation) % 16 == 0 &&
         AreWordsAligned(params.a, params.residual_in, params.weight, params.residual_out,
                         params.out);
}

}  // namespace

CudaLaunch AddRmsNormCuda(const AddRmsNormParams& params, int64_t rows, CudaStream stream) {
  if (rows == 0) return {};
  const int64_t words = RowWords(params.hidden, SizeOf(params.activation));
  const RowGridLimits limits{.max_blocks = 1 << 20,
                             .max_row_blocks = 1,
                             .max_threads = kThreads,
                             .max_one_word_threads = kThreads,
                             .max_thread_words = MaxThreadWords(SizeOf(params.activation))};
  RowGridPlan plan;
  if (!PlanRowGrid(rows, words, IsAligned(params), 1, limits, &plan)) {
    return {cudaErrorInvalidValue};
  }
  return WithRowShape(plan, [&](auto aligned, auto thread_words) {
    return WithElementType(params.activation, [&](auto element) {
      using T = decltype(element);
      return LaunchRows<
          AddRmsNormKernel<T, aligned.value, ThreadWords<T, thread_words.value>::value>>(
          plan, stream, params, rows);
    });
  });
}

}  // namespace muster
