#ifndef MUSTER_WORKER_COLLECTIVE_COMMUNICATOR_H_
#define MUSTER_WORKER_COLLECTIVE_COMMUNICATOR_H_

#include <cstddef>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "worker/collective/group.h"
#include "worker/device/stream.h"

namespace muster {

// The plain collectives of one group. All ranks enqueue the same calls in the
// same order on one stream each; a call means *enqueued*, on every backend.
// Waits are bounded: a rank that does not come makes its peers fail with
// DEADLINE_EXCEEDED that names it, and Abort fails all at once. After a failure
// the communicator is unusable.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual const Group& group() const = 0;

  // data[count] := sum over ranks, fp32 accumulation in rank order; bitwise
  // equal on all ranks.
  virtual absl::Status AllReduce(Stream& stream, void* data, size_t count, DType dtype) = 0;
  // receive[size * bytes] := every rank's send[bytes], in rank order.
  virtual absl::Status AllGather(Stream& stream, const void* send, void* receive, size_t bytes) = 0;
  // receive[count] := this rank's part of the sum of send[size * count].
  virtual absl::Status ReduceScatter(Stream& stream, const void* send, void* receive, size_t count,
                                     DType dtype) = 0;
  virtual absl::Status Broadcast(Stream& stream, void* data, size_t bytes, GroupRank root) = 0;
  virtual absl::Status Barrier(Stream& stream) = 0;

  // Fails the waits of all ranks of the group, those now and those to come,
  // with `reason`. Any thread.
  virtual void Abort(const absl::Status& reason) = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_COMMUNICATOR_H_
