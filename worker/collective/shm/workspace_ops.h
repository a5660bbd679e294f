// What every workspace does with an operation, fused or not.
#ifndef MUSTER_WORKER_COLLECTIVE_SHM_WORKSPACE_OPS_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_WORKSPACE_OPS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "worker/collective/collective_stamp.h"
#include "worker/collective/workspace.h"

namespace muster {

// INVALID_ARGUMENT when a size or a pointer is missing, the slices are not whole, or a row of the
// operation is longer than `slab_bytes`.
absl::Status CheckOp(const FusedAllReduceRmsNorm& op, uint64_t slab_bytes);
absl::Status CheckOp(const CpCombine& op, int ranks, uint64_t slab_bytes);

CollectiveStamp StampOf(const FusedAllReduceRmsNorm& op);
CollectiveStamp StampOf(const CpCombine& op);

// Tokens [begin, begin + count) of the operation.
FusedAllReduceRmsNorm SliceOf(const FusedAllReduceRmsNorm& op, int64_t begin, int64_t count);

// Bytes that one token takes in a slab: sums of 16-bit values are published as float32.
uint64_t SlabRowBytes(const FusedAllReduceRmsNorm& op);
uint64_t SlabRowBytes(const CpCombine& op);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_WORKSPACE_OPS_H_
