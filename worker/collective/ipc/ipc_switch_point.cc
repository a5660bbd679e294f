#include "worker/collective/ipc/ipc_switch_point.h"

#include <algorithm>
#include <chrono>

#include "base/status_macros.h"
#include "worker/collective/ipc/ipc_communicator.h"
#include "worker/collective/ipc/ipc_workspace.h"

namespace muster {
namespace {

constexpr uint64_t kNever = ~uint64_t{0};
constexpr int kRounds = 3, kOperations = 8;
constexpr int kMostHidden = 4096;
// Two shots must be this much faster: noise decides nothing.
constexpr double kMargin = 0.95;

class Race {
 public:
  Race(IpcPeers& peers, Stream& stream)
      : peers_(peers), stream_(stream), workspace_(peers.group(), peers) {}

  absl::Status Prepare(uint64_t most_bytes, Ledger& ledger) {
    const auto allocate = [&](Buffer& buffer, size_t bytes) -> absl::Status {
      MUSTER_ASSIGN_OR_RETURN(buffer, peers_.device().Allocate(bytes, "self-test", ledger));
      return absl::OkStatus();
    };
    MUSTER_RETURN_IF_ERROR(allocate(partial_, most_bytes));
    MUSTER_RETURN_IF_ERROR(allocate(norm_, most_bytes));
    return allocate(weight_, kMostHidden * sizeof(float));
  }

  // Whether two shots win for so many tokens.
  absl::StatusOr<bool> TwoShotsWin(int tokens, int hidden) {
    double best[2] = {1e9, 1e9};
    for (int round = 0; round < kRounds; ++round) {
      for (int two : {0, 1}) {
        peers_.set_two_shot_bytes(two != 0 ? 0 : kNever);
        MUSTER_ASSIGN_OR_RETURN(const double seconds, Time(tokens, hidden));
        best[two] = std::min(best[two], seconds);
      }
    }
    return best[1] < kMargin * best[0];
  }

 private:
  // The ranks begin together, and the first operation is not counted.
  absl::StatusOr<double> Time(int tokens, int hidden) {
    const FusedAllReduceRmsNorm op{.partial = partial_.data(),
                                   .weight = weight_.as<float>(),
                                   .norm_out = norm_.data(),
                                   .tokens = tokens,
                                   .hidden = hidden,
                                   .eps = 1e-5f,
                                   .dtype = DType::kBFloat16};
    MUSTER_RETURN_IF_ERROR(workspace_.Enqueue(stream_, op));
    MUSTER_RETURN_IF_ERROR(stream_.Synchronize());
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kOperations; ++i) MUSTER_RETURN_IF_ERROR(workspace_.Enqueue(stream_, op));
    MUSTER_RETURN_IF_ERROR(stream_.Synchronize());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  IpcPeers& peers_;
  Stream& stream_;
  IpcWorkspace workspace_;
  Buffer partial_, norm_, weight_;
};

}  // namespace

absl::StatusOr<uint64_t> MeasureTwoShotBytes(IpcPeers& peers, Stream& stream, Ledger& ledger) {
  if (peers.size() == 1) return kNever;
  const uint64_t before = peers.two_shot_bytes();
  const uint64_t largest =
      static_cast<uint64_t>(std::min(peers.layout().slot_bytes, peers.layout().slice_bytes));
  // Rows whose padding is small beside them, as CheckOp wants them.
  const int hidden =
      static_cast<int>(std::min<uint64_t>(kMostHidden, largest / sizeof(float) / 8 * 8));
  const uint64_t row = static_cast<uint64_t>(hidden) * SizeOf(DType::kBFloat16);
  Race race(peers, stream);
  MUSTER_RETURN_IF_ERROR(race.Prepare(largest, ledger));
  uint64_t switch_bytes = largest;
  // From large to small: the point lies where two shots stop paying, which ranks may not agree on;
  // so all of them run all sizes.
  bool pays = true;
  for (uint64_t tokens = largest / row; tokens >= 1; tokens /= 4) {
    MUSTER_ASSIGN_OR_RETURN(const bool wins, race.TwoShotsWin(static_cast<int>(tokens), hidden));
    pays = pays && wins;
    if (pays) switch_bytes = tokens * row / 2;  // between this size, which pays, and the next one
  }
  peers.set_two_shot_bytes(before);
  return switch_bytes;
}

}  // namespace muster
