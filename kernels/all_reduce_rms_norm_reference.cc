#include <cmath>

#include "kernels/all_reduce_rms_norm.h"
#include "kernels/reference.h"

namespace muster {
namespace {

// What residual_out holds at element `i`, as float32. Its order of additions is specified.
float Residual(const AllReduceRmsNormParams& params, int64_t i) {
  float sum = LoadElement(params.dtype, params.parts[0], i);
  for (int32_t rank = 1; rank < params.world; ++rank) {
    sum += LoadElement(params.dtype, params.parts[rank], i);
  }
  if (params.residual_in != nullptr) {
    sum += LoadElement(params.residual_dtype, params.residual_in, i);
  }
  float rounded = 0;
  StoreElement(sum, params.residual_dtype, &rounded, 0);
  return LoadElement(params.residual_dtype, &rounded, 0);
}

}  // namespace

void AllReduceRmsNormReference(const AllReduceRmsNormParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t offset = row * params.hidden;
    double square_sum = 0;
    for (int64_t i = offset; i < offset + params.hidden; ++i) {
      square_sum += double{Residual(params, i)} * Residual(params, i);
    }
    const double rms = std::sqrt(square_sum / static_cast<double>(params.hidden) + params.eps);
    for (int64_t i = offset; i < offset + params.hidden; ++i) {
      const float residual = Residual(params, i);  // before residual_out overwrites residual_in
      const double norm = residual / rms * params.weight[i - offset];
      if (params.residual_out != nullptr) {
        StoreElement(residual, params.residual_dtype, params.residual_out, i);
      }
      StoreElement(static_cast<float>(norm), params.norm_dtype, params.norm_out, i);
    }
  }
}

}  // namespace muster
