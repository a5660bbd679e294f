#ifndef MUSTER_WORKER_DEVICE_CPU_CPU_GRAPH_H_
#define MUSTER_WORKER_DEVICE_CPU_CPU_GRAPH_H_

#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "worker/device/graph.h"

namespace muster {

// Closures in the order in which they were enqueued. Launch runs them in a plain loop, up to the
// first error, on the stream's thread.
class CpuGraph final : public Graph {
 public:
  // While it is recorded: appends one operation.
  template <typename Op>
  void Append(Op op) {
    closure_bytes_ += sizeof(Op);
    ops_.emplace_back(std::move(op));
  }

  // FAILED_PRECONDITION while `stream` records: graphs do not nest.
  absl::Status Launch(Stream& stream) override;
  size_t bytes() const override {
    return sizeof(*this) + ops_.capacity() * sizeof(ops_[0]) + closure_bytes_;
  }

  size_t size() const { return ops_.size(); }

 private:
  absl::Status Replay();

  std::vector<absl::AnyInvocable<absl::Status()>> ops_;
  size_t closure_bytes_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CPU_CPU_GRAPH_H_
