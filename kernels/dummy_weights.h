// Weights of a model that has none: enough like those of a freshly initialised one that it runs as
// a trained one does. An element depends on its tensor and its place in it alone, so that all ways
// to cut a tensor among ranks give the same model.
#ifndef MUSTER_KERNELS_DUMMY_WEIGHTS_H_
#define MUSTER_KERNELS_DUMMY_WEIGHTS_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/index_range.h"

namespace muster {

// How a tensor's elements are made. Element i, counted row by row, has the sum s of four bytes of a
// hash: of the lower four bytes for an even i, of the upper four for an odd one, the hash being
// number i / 2 of the SplitMix64 generator (Steele, Lea and Flood, 2014) whose state began as
// `key`. The element is mean + (s - 510) * step as a float32, rounded to its type: close to normal,
// within 3.45 standard deviations of the mean.
struct DummyTensor {
  uint64_t key = 0;
  float mean = 0;
  float step = 0;  // not negative; `mean` or `step` is 0, so that there is one rounding
};

// The standard deviation of s, the square root of 21845.
inline constexpr double kDummySumDeviation = 147.80054127;

// A rectangle of a tensor.
struct DummyWeightsParams {
  DummyTensor tensor;
  int64_t first = 0;       // place in the tensor of the rectangle's first element
  int64_t row_stride = 0;  // from there to the first of its next row: the tensor's columns
  int64_t columns = 0;     // of the rectangle
  DType dtype = DType::kFloat32;
  void* out = nullptr;  // [rows, columns] in dtype
};

void DummyWeightsReference(const DummyWeightsParams& params, IndexRange rows);
void DummyWeightsCpu(const DummyWeightsParams& params, IndexRange rows);
CudaLaunch DummyWeightsCuda(const DummyWeightsParams& params, int64_t rows, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_DUMMY_WEIGHTS_H_
