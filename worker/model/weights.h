// How tensors of a checkpoint become one rank's weights.
#ifndef MUSTER_WORKER_MODEL_WEIGHTS_H_
#define MUSTER_WORKER_MODEL_WEIGHTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/dtype.h"
#include "worker/device/device.h"
#include "worker/model/checkpoint.h"
#include "worker/model/matrix.h"
#include "worker/model/rank_shape.h"
#include "worker/model/weight_stream.h"

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

// What a weight's slice depends on: TP alone, or the rank's place in all of STAGE.
enum class WeightGroup { kTp, kStage };
inline constexpr size_t kWeightGroups = 2;

// All weights of a group, which models may share. Immutable once it is filled.
struct WeightMemory {
  Ledger ledger;  // of the buffer, which no ledger of an epoch is sure to outlive
  Buffer buffer;
  uint64_t key = 0;  // a digest of the checkpoint, the slices, their order and their types
};

// What a model holds, charged to a ledger by the bytes that it uses, be they shared or not.
struct HeldWeights {
  std::array<std::shared_ptr<const WeightMemory>, kWeightGroups> groups;  // by WeightGroup
  LedgerCharge charge;                                                    // tag "weights"
  uint64_t shared_bytes = 0;  // of the above, what another model had loaded before
  absl::Duration read_time;   // that reading the rest took

  uint64_t bytes() const { return charge.bytes(); }
};

// Collects what a rank needs, then allocates it as one buffer per group and fills them. References
// outlive it.
class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, DType dtype)
      : checkpoint_(checkpoint), dtype_(dtype) {}

  // `matrix` will hold the slices one below the other, in the model's type. It is filled in by Load
  // and must stay where it is until then; so must `vector`.
  void AddMatrix(WeightGroup group, std::vector<TensorSlice> slices, Matrix* matrix);
  // `vector` will point to the slices one after the other, as float32.
  void AddVector(WeightGroup group, std::vector<VectorSlice> slices, const float** vector);
  // The same of a whole tensor.
  void AddVector(WeightGroup group, const std::string& tensor, int size, const float** vector) {
    AddVector(group, {{.tensor = tensor, .size = size, .shard = {0, size}}}, vector);
  }

  // Once. Holds all that was added. A group that `previous` (null: none; on the same device) has
  // under the same key is shared; the others are read, and `progress` counts only them. Errors of
  // Checkpoint::Find, Device::Allocate and StreamWeights; nothing is allocated when a tensor is
  // missing or has the wrong shape.
  absl::StatusOr<HeldWeights> Load(Device& device, Ledger& ledger, const HeldWeights* previous,
                                   const LoadProgress& progress);

 private:
  struct Source {
    TensorView view;
    TensorSlice slice;
  };
  // One matrix or vector.
  struct Target {
    WeightGroup group = WeightGroup::kTp;
    std::vector<TensorSlice> slices;
    std::vector<Source> sources;
    DType dtype = DType::kFloat32;
    uint64_t offset = 0;  // in the buffer of its group
    Matrix* matrix = nullptr;
    const float** vector = nullptr;
    bool one_dimension = false;
  };
  absl::Status Resolve();
  // Offsets of all targets of a group; returns the buffer's size.
  uint64_t Place(WeightGroup group);
  uint64_t KeyOf(WeightGroup group) const;
  void Publish(WeightGroup group, const WeightMemory& memory);
  // What fills the group's memory at `data`.
  void AppendTransfers(WeightGroup group, std::byte* data,
                       std::vector<WeightTransfer>& transfers) const;

  const Checkpoint& checkpoint_;
  const DType dtype_;
  std::vector<Target> targets_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_WEIGHTS_H_
