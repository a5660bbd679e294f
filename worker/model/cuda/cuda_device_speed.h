// What a GPU can do: the limits that a benchmark holds the steps of a model against.
#ifndef MUSTER_WORKER_MODEL_CUDA_CUDA_DEVICE_SPEED_H_
#define MUSTER_WORKER_MODEL_CUDA_CUDA_DEVICE_SPEED_H_

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "worker/device/cuda/cuda_device.h"
#include "worker/device/device_speed.h"

namespace muster {

// Measures in about a tenth of a second, with memory for it for as long: RESOURCE_EXHAUSTED.
// `dtype` is that of the weights; the product is cuBLASLt's (UNAVAILABLE), of random numbers. Any
// thread; while the GPU computes something else, both are slower than they could be.
absl::StatusOr<DeviceSpeed> MeasureCuda(CudaDevice& device, DType dtype);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CUDA_CUDA_DEVICE_SPEED_H_
