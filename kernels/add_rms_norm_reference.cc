#include <cmath>

#include "kernels/add_rms_norm.h"

namespace muster {

void AddRmsNormReference(const AddRmsNormParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t offset = row * params.hidden;
    double square_sum = 0;
    for (int64_t i = offset; i < offset + params.hidden; ++i) {
      const float residual = params.residual_in != nullptr ? params.residual_in[i] : 0.0f;
      const float sum = params.residual_in != nullptr ? params.a[i] + residual : params.a[i];
      if (params.residual_out != nullptr) params.residual_out[i] = sum;
      params.out[i] = sum;
      square_sum += double{sum} * sum;
    }
    const double rms = std::sqrt(square_sum / static_cast<double>(params.hidden) + params.eps);
    for (int64_t i = 0; i < params.hidden; ++i) {
      params.out[offset + i] = static_cast<float>(params.out[offset + i] / rms * params.weight[i]);
    }
  }
}

}  // namespace muster
