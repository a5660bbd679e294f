#include <array>

#include "kernels/dummy_weights-inl.h"
#include "kernels/dummy_weights.h"

namespace muster {
namespace {

// What each sum of bytes becomes: a look-up is cheaper than arithmetic and rounding.
template <typename T>
using Values = std::array<T, kDummyLargestSum + 1>;

template <typename T>
Values<T> ValuesOf(const DummyTensor& tensor) {
  Values<T> values;
  for (int sum = 0; sum <= kDummyLargestSum; ++sum) {
    values[sum] = T(tensor.mean + static_cast<float>(sum - kDummyLargestSum / 2) * tensor.step);
  }
  return values;
}

template <typename T>
void FillRow(const Values<T>& values, uint64_t key, uint64_t first, int64_t count, T* out) {
  const T* const end = out + count;
  uint64_t pair = first / 2;
  if (first % 2 != 0 && out != end) *out++ = values[DummySums(key, pair++) >> 32];
  for (; end - out >= 2; out += 2, ++pair) {
    const uint64_t sums = DummySums(key, pair);
    out[0] = values[static_cast<uint32_t>(sums)];
    out[1] = values[sums >> 32];
  }
  if (out != end) *out = values[static_cast<uint32_t>(DummySums(key, pair))];
}

template <typename T>
void Fill(const DummyWeightsParams& params, IndexRange rows) {
  const Values<T> values = ValuesOf<T>(params.tensor);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    FillRow(values, params.tensor.key,
            static_cast<uint64_t>(params.first + row * params.row_stride), params.columns,
            static_cast<T*>(params.out) + row * params.columns);
  }
}

}  // namespace

void DummyWeightsCpu(const DummyWeightsParams& params, IndexRange rows) {
  switch (params.dtype) {
    case DType::kFloat32:
      return Fill<float>(params, rows);
    case DType::kBFloat16:
      return Fill<BFloat16>(params, rows);
    case DType::kFloat16:
      return Fill<Float16>(params, rows);
  }
}

}  // namespace muster
