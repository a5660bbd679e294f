// What a CPU device can do: the limits that a benchmark holds the steps of a model against.
#ifndef MUSTER_WORKER_MODEL_CPU_CPU_DEVICE_SPEED_H_
#define MUSTER_WORKER_MODEL_CPU_CPU_DEVICE_SPEED_H_

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/device_speed.h"

namespace muster {

// Measures with all threads of `device`, about half a second. `dtype` is that of the weights; where
// the processor has no product in bfloat16, the product is in float32, as a step's is. Any thread;
// while the device computes something else, both are slower than they could be.
// RESOURCE_EXHAUSTED: no memory for it.
absl::StatusOr<DeviceSpeed> MeasureCpu(CpuDevice& device, DType dtype);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CPU_CPU_DEVICE_SPEED_H_
