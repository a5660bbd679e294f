#ifndef MUSTER_WORKER_DEVICE_CPU_CPU_STREAM_H_
#define MUSTER_WORKER_DEVICE_CPU_CPU_STREAM_H_

#include <utility>

#include "absl/status/status.h"
#include "worker/device/cpu/cpu_graph.h"
#include "worker/device/cpu/thread_pool.h"
#include "worker/device/stream.h"

namespace muster {

// Runs work where it is enqueued. The pool outlives the stream.
class CpuStream final : public Stream {
 public:
  explicit CpuStream(ThreadPool& pool) : pool_(pool) {}

  // How ops of this backend reach their stream; `stream` was made by a CpuDevice.
  static CpuStream& From(Stream& stream) { return static_cast<CpuStream&>(stream); }

  // The compute threads of the rank.
  ThreadPool& pool() const { return pool_; }

  // Enqueues `op`, a callable that returns absl::Status: runs it at once and returns its status,
  // or, during a capture, keeps it in the graph and returns OK. Running allocates nothing.
  template <typename Op>
  absl::Status Run(Op op) {
    if (graph_ != nullptr) {
      graph_->Append(std::move(op));
      return absl::OkStatus();
    }
    absl::Status status = op();
    if (!status.ok() && first_error_.ok()) first_error_ = status;
    return status;
  }

  bool recording() const { return graph_ != nullptr; }
  // From here on Run appends to `graph`; null ends the recording.
  void Record(CpuGraph* graph) { graph_ = graph; }

  // The first error since the last Synchronize.
  absl::Status Synchronize() override { return std::exchange(first_error_, absl::OkStatus()); }

 private:
  ThreadPool& pool_;
  CpuGraph* graph_ = nullptr;
  absl::Status first_error_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CPU_CPU_STREAM_H_
