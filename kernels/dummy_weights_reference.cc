#include "kernels/dummy_weights.h"
#include "kernels/reference.h"

namespace muster {
namespace {

// The generator as it is published: its state moves on by a constant, and is then mixed.
uint64_t SplitMix64(uint64_t seed, uint64_t number) {
  const uint64_t state = seed + (number + 1) * 0x9E3779B97F4A7C15u;
  const uint64_t once = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9u;
  const uint64_t twice = (once ^ (once >> 27)) * 0x94D049BB133111EBu;
  return twice ^ (twice >> 31);
}

int SumOfBytes(uint64_t key, int64_t element) {
  const uint64_t hash = SplitMix64(key, static_cast<uint64_t>(element / 2));
  int sum = 0;
  for (int i = 0; i < 4; ++i) sum += hash >> (32 * (element % 2) + 8 * i) & 0xFF;
  return sum;
}

}  // namespace

void DummyWeightsReference(const DummyWeightsParams& params, IndexRange rows) {
  const DummyTensor& tensor = params.tensor;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t column = 0; column < params.columns; ++column) {
      const int64_t element = params.first + row * params.row_stride + column;
      const int sum = SumOfBytes(tensor.key, element);
      const double value = tensor.mean + (sum - 510) * static_cast<double>(tensor.step);
      StoreElement(static_cast<float>(value), params.dtype, params.out,
                   row * params.columns + column);
    }
  }
}

}  // namespace muster
