#include "worker/collective/nccl/replay_timer.h"

#include <algorithm>

#include "absl/memory/memory.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"
#include "worker/device/cuda/cuda_stream.h"

namespace muster {
namespace {

constexpr int kFewestReplays = 5, kWarmUpReplays = 3;
constexpr double kMostMicros = 1e6;
constexpr absl::Duration kPatience = absl::Seconds(25);

}  // namespace

absl::StatusOr<std::unique_ptr<ReplayTimer>> ReplayTimer::Make(const Group& group,
                                                               Rendezvous& rendezvous,
                                                               Device& device, Stream& stream) {
  auto timer = absl::WrapUnique(new ReplayTimer(group, rendezvous, device, stream));
  for (cudaEvent_t& event : timer->events_) {
    MUSTER_RETURN_IF_ERROR(CudaStatus(cudaEventCreate(&event), "making an event"));
  }
  return timer;
}

ReplayTimer::~ReplayTimer() {
  for (cudaEvent_t event : events_) {
    if (event != nullptr) (void)cudaEventDestroy(event);
  }
}

absl::StatusOr<std::vector<std::string>> ReplayTimer::Meet(absl::string_view value) {
  return rendezvous_.AllGather(group_, absl::StrCat("meeting ", ++meetings_), value, kPatience);
}

absl::StatusOr<double> ReplayTimer::Greatest(double value) {
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> values, Meet(absl::StrCat(value)));
  double greatest = 0;  // of what was told, which is the same everywhere
  for (const std::string& text : values) {
    double told = 0;
    if (absl::SimpleAtod(text, &told)) greatest = std::max(greatest, told);
  }
  return greatest;
}

absl::StatusOr<double> ReplayTimer::TimeInGraph(absl::FunctionRef<absl::Status()> op) {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Graph> graph,
                          device_.Capture(stream_, [&]() -> absl::Status {
                            for (int i = 0; i < kOps; ++i) MUSTER_RETURN_IF_ERROR(op());
                            return absl::OkStatus();
                          }));
  MUSTER_ASSIGN_OR_RETURN(const double micros, TimeReplays([&] { return graph->Launch(stream_); }));
  return micros / kOps;
}

absl::StatusOr<double> ReplayTimer::TimeReplays(absl::FunctionRef<absl::Status()> replay) {
  MUSTER_ASSIGN_OR_RETURN(const double first, MedianOf(kWarmUpReplays, replay));
  MUSTER_ASSIGN_OR_RETURN(const double estimate, Greatest(std::max(first, 1.0)));
  const double affordable = std::clamp<double>(kMostMicros / estimate, kFewestReplays, kReplays);
  MUSTER_ASSIGN_OR_RETURN(const double median, MedianOf(static_cast<int>(affordable), replay));
  return Greatest(median);
}

// Replays follow each other without a pause, as steps do: the collectives keep the ranks together.
absl::StatusOr<double> ReplayTimer::MedianOf(int replays,
                                             absl::FunctionRef<absl::Status()> replay) {
  CudaStream const stream = CudaDeviceStream::From(stream_).get();
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(events_[0], stream), "timing"));
  for (int i = 1; i <= replays; ++i) {
    MUSTER_RETURN_IF_ERROR(replay());
    MUSTER_RETURN_IF_ERROR(
        CudaStatus(cudaEventRecord(events_[static_cast<size_t>(i)], stream), "timing"));
  }
  MUSTER_RETURN_IF_ERROR(stream_.Synchronize());
  std::vector<double> micros;
  for (size_t i = 1; i <= static_cast<size_t>(replays); ++i) {
    float milliseconds = 0;
    MUSTER_RETURN_IF_ERROR(CudaStatus(
        cudaEventElapsedTime(&milliseconds, events_[i - 1], events_[i]), "reading a time"));
    micros.push_back(milliseconds * 1e3);
  }
  std::nth_element(micros.begin(), micros.begin() + replays / 2, micros.end());
  return micros[static_cast<size_t>(replays / 2)];
}

}  // namespace muster
