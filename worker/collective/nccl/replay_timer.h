#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_REPLAY_TIMER_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_REPLAY_TIMER_H_

#include <cuda_runtime_api.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/collective/group.h"
#include "worker/collective/rendezvous.h"
#include "worker/device/device.h"

namespace muster {

// Times what all ranks of a group do together on their GPUs, in microseconds of the slowest rank.
// All ranks make the same calls in the same order.
class ReplayTimer {
 public:
  static constexpr int kOps = 20, kReplays = 61;

  // `rendezvous` serves nothing else; all outlive it. `stream` was made by `device`, of CUDA.
  static absl::StatusOr<std::unique_ptr<ReplayTimer>> Make(const Group& group,
                                                           Rendezvous& rendezvous, Device& device,
                                                           Stream& stream);
  ReplayTimer(const ReplayTimer&) = delete;
  ReplayTimer& operator=(const ReplayTimer&) = delete;
  ~ReplayTimer();

  // One call of `op`, which enqueues on the stream: kOps of them are captured in a graph.
  absl::StatusOr<double> TimeInGraph(absl::FunctionRef<absl::Status()> op);
  // One call of `replay`: the median of kReplays, or of fewer that take a second.
  absl::StatusOr<double> TimeReplays(absl::FunctionRef<absl::Status()> replay);

  // Every rank's value.
  absl::StatusOr<std::vector<std::string>> Meet(absl::string_view value);

 private:
  ReplayTimer(const Group& group, Rendezvous& rendezvous, Device& device, Stream& stream)
      : group_(group), rendezvous_(rendezvous), device_(device), stream_(stream) {}

  absl::StatusOr<double> Greatest(double value);
  absl::StatusOr<double> MedianOf(int replays, absl::FunctionRef<absl::Status()> replay);

  const Group group_;
  Rendezvous& rendezvous_;
  Device& device_;
  Stream& stream_;
  int meetings_ = 0;
  std::array<cudaEvent_t, kReplays + 1> events_{};
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_REPLAY_TIMER_H_
