// Partial sums that know over which group they must be reduced.
#ifndef MUSTER_WORKER_COLLECTIVE_PARTIAL_H_
#define MUSTER_WORKER_COLLECTIVE_PARTIAL_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/topology.h"
#include "worker/collective/workspace.h"
#include "worker/device/stream.h"

namespace muster {

// One rank's summand of values whose sum is over the ranks of its group of kind K: the union of the
// axes that the producer's weight was sharded over.
template <GroupKind K>
struct Partial {
  const void* data = nullptr;  // [tokens, hidden] in dtype
  int tokens = 0;
  int hidden = 0;
  DType dtype = DType::kFloat32;
};

// What follows the sum; see FusedAllReduceRmsNorm. Residual and norm have the type of the partial.
struct ResidualNorm {
  const void* residual_in = nullptr;  // null means zeros
  const float* weight = nullptr;      // [hidden]
  float eps = 0;
  void* residual_out = nullptr;  // null when not wanted
  void* norm_out = nullptr;
};

// Reduces partial sums of kind K, and no others. The workspace, fused or not, outlives it.
template <GroupKind K>
class Reducer {
 public:
  // FAILED_PRECONDITION when the workspace is of another kind of group.
  static absl::StatusOr<Reducer> Create(Workspace& workspace) {
    if (workspace.group().kind() == K) return Reducer(workspace);
    return absl::FailedPreconditionError(absl::StrCat("partial sums over ", GroupKindName(K),
                                                      " cannot be reduced over ",
                                                      workspace.group().DebugString()));
  }

  // Enqueues residual_out := sum + residual_in; norm_out := rmsnorm(residual_out) * weight. Errors
  // as of Workspace.
  absl::Status ReduceAddNorm(Stream& stream, const Partial<K>& partial, const ResidualNorm& norm) {
    return workspace_->Enqueue(stream, FusedAllReduceRmsNorm{.partial = partial.data,
                                                             .residual_in = norm.residual_in,
                                                             .weight = norm.weight,
                                                             .residual_out = norm.residual_out,
                                                             .norm_out = norm.norm_out,
                                                             .tokens = partial.tokens,
                                                             .hidden = partial.hidden,
                                                             .eps = norm.eps,
                                                             .dtype = partial.dtype});
  }

 private:
  explicit Reducer(Workspace& workspace) : workspace_(&workspace) {}

  Workspace* workspace_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_PARTIAL_H_
