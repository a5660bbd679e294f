// Weights on their way from a checkpoint into memory of a device.
#ifndef MUSTER_WORKER_MODEL_WEIGHT_STREAM_H_
#define MUSTER_WORKER_MODEL_WEIGHT_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "worker/device/device.h"
#include "worker/model/checkpoint.h"
#include "worker/model/rank_shape.h"

namespace muster {

// A rectangle of a tensor, and where it goes.
struct WeightTransfer {
  TensorView view;
  int64_t tensor_columns = 0;  // a tensor of one dimension has one row
  ShardRange rows;
  ShardRange columns;
  DType dtype = DType::kFloat32;  // in which it is held
  std::byte* to = nullptr;        // [rows, columns], dense, memory of the device
};

// Carries out all transfers; their order is not kept. A few threads that it starts, of the caller's
// priority, read and convert into pinned memory, which the device copies from while they go on;
// each uses streams of its own. The calling thread is told every few megabytes how many bytes are
// on their way, and what it answers, when it is not OK, ends the transfers and is returned. So is
// the first error of the device. On return nothing is on its way any more.
absl::Status StreamWeights(const std::vector<WeightTransfer>& transfers, Device& device,
                           absl::FunctionRef<absl::Status(uint64_t bytes)> progress);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_WEIGHT_STREAM_H_
