#include "kernels/reference.h"
#include "kernels/skinny_matmul.h"

namespace muster {

void RoundActivationsReference(const RoundActivationsParams& params, IndexRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t i = 0; i < params.k; ++i) {
      params.out[row * params.out_row_stride + i] =
          BFloat16(params.x[row * params.x_row_stride + i]);
    }
  }
}

void SkinnyMatmulReference(const SkinnyMatmulParams& params, IndexRange columns) {
  for (int64_t row = 0; row < params.rows; ++row) {
    for (int64_t column = columns.begin; column < columns.end; ++column) {
      double sum = params.bias != nullptr ? params.bias[column] : 0;
      for (int64_t i = 0; i < params.k; ++i) {
        const double x = LoadElement(params.x_dtype, params.x, row * params.x_row_stride + i);
        sum +=
            x * LoadElement(params.dtype, params.weights, column * params.weights_row_stride + i);
      }
      StoreElement(static_cast<float>(sum), params.y_dtype, params.y,
                   row * params.y_row_stride + column);
    }
  }
}

}  // namespace muster
