// The memory that the fused collectives of a rank list run in.
#ifndef MUSTER_WORKER_COLLECTIVE_WORKSPACE_H_
#define MUSTER_WORKER_COLLECTIVE_WORKSPACE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "worker/collective/group.h"
#include "worker/device/stream.h"

namespace muster {

// residual_out := sum over ranks of partial + residual_in;  norm_out :=
// rmsnorm(residual_out) * weight.
struct FusedAllReduceRmsNorm {
  const void* partial = nullptr;      // [tokens, hidden] in dtype, this rank's summand
  const void* residual_in = nullptr;  // [tokens, hidden] in dtype; null means zeros
  const float* weight = nullptr;      // [hidden]
  void* residual_out = nullptr;       // [tokens, hidden] in dtype; may be
                                      // residual_in; null when not wanted
  void* norm_out = nullptr;           // [tokens, hidden] in dtype
  int tokens = 0;                     // the same on all ranks
  int hidden = 0;
  float eps = 0;
  DType dtype = DType::kFloat32;
};

// Merges the partial attention of all ranks by their LSE and leaves slice
// `group rank` of the flattened heads here.
struct CpCombine {
  const void* partial = nullptr;  // [tokens, heads * head_dim] in dtype, over this rank's keys
  const float* lse = nullptr;     // [tokens, heads], natural log; -inf where the rank held no key
  void* out = nullptr;            // [tokens, heads * head_dim / size] in dtype
  int tokens = 0;                 // the same on all ranks
  int heads = 0;
  int head_dim = 0;               // size divides heads * head_dim
  DType dtype = DType::kFloat32;  // on the CPU always
};

// One per ordered rank list of an epoch, shared by every use of the same ranks.
// Built in Warmup, then sealed: its addresses and size never change. Calls mean
// *enqueued*, in the same order on all ranks (one sequence for both ops).
// Results are bitwise equal on all ranks and from run to run. INVALID_ARGUMENT
// when a message cannot fit even in slices. Failures as of Communicator.
class Workspace {
 public:
  virtual ~Workspace() = default;

  virtual const Group& group() const = 0;
  virtual absl::Status Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) = 0;
  virtual absl::Status Enqueue(Stream& stream, const CpCombine& op) = 0;

  // As Communicator::Abort.
  virtual void Abort(const absl::Status& reason) = 0;
  // Bytes of this rank's exported memory.
  virtual size_t bytes() const = 0;
  // Digest of the layout that all ranks must share.
  virtual uint64_t layout_digest() const = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_WORKSPACE_H_
