// How tensors of a checkpoint become one rank's weights.
#ifndef MUSTER_WORKER_MODEL_WEIGHTS_H_
#define MUSTER_WORKER_MODEL_WEIGHTS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "worker/device/device.h"
#include "worker/model/checkpoint.h"
#include "worker/model/matrix.h"
#include "worker/model/rank_shape.h"

namespace muster {

// A rectangle of a tensor of the checkpoint.
struct TensorSlice {
  std::string tensor;
  int rows = 0;  // of the whole tensor
  int columns = 0;
  ShardRange row_shard;
  ShardRange column_shard;
};

// A run of a tensor of one dimension.
struct VectorSlice {
  std::string tensor;
  int size = 0;  // of the whole tensor
  ShardRange shard;
};

// bytes done, bytes in all; on the loading thread, which gives up with what is not OK.
using LoadProgress = std::function<absl::Status(uint64_t done, uint64_t total)>;

// Collects what a rank needs, then allocates it as one buffer and fills it. References outlive it.
class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, DType dtype)
      : checkpoint_(checkpoint), dtype_(dtype) {}

  // `matrix` will hold the slices one below the other, in the model's type. It is filled in by Load
  // and must stay where it is until then; so must `vector`.
  void AddMatrix(std::vector<TensorSlice> slices, Matrix* matrix);
  // `vector` will point to the slices one after the other, as float32.
  void AddVector(std::vector<VectorSlice> slices, const float** vector);
  // The same of a whole tensor.
  void AddVector(const std::string& tensor, int size, const float** vector) {
    AddVector({{.tensor = tensor, .size = size, .shard = {0, size}}}, vector);
  }

  // Once. The buffer (ledger tag "weights") holds all that was added. Errors of Checkpoint::Find
  // and Device::Allocate; nothing is allocated when a tensor is missing or has the wrong shape.
  absl::StatusOr<Buffer> Load(Device& device, Ledger& ledger, const LoadProgress& progress);

 private:
  struct Source {
    TensorView view;
    TensorSlice slice;
  };
  // One matrix or vector.
  struct Target {
    std::vector<TensorSlice> slices;
    std::vector<Source> sources;
    DType dtype = DType::kFloat32;
    uint64_t offset = 0;  // in the buffer
    Matrix* matrix = nullptr;
    const float** vector = nullptr;
    bool one_dimension = false;
  };

  absl::Status Resolve();
  // Offsets of all targets; returns the buffer's size.
  uint64_t Place();
  void Publish(const Target& target, std::byte* data);

  const Checkpoint& checkpoint_;
  const DType dtype_;
  std::vector<Target> targets_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_WEIGHTS_H_
