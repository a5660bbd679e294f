// Which GPUs of a group can reach which, as its ranks say of themselves.
#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_GPU_REACH_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_GPU_REACH_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster {

// One rank's GPU and what it knows of the others.
struct GpuReach {
  std::string host;                      // another word on every host; since it was started
  std::string uuid;                      // of the GPU
  std::vector<std::string> unreachable;  // UUIDs of GPUs of this host that it cannot access

  // Without ';' and '|'.
  std::string Encode() const;
  // INVALID_ARGUMENT.
  static absl::StatusOr<GpuReach> Decode(absl::string_view text);
};

// This host since it was started.
std::string HostWord();

// The first pair of ranks whose GPUs cannot reach each other; the same wherever it is asked. GPUs
// that nobody says anything of can.
std::optional<std::pair<int, int>> FirstUnreachable(const std::vector<GpuReach>& ranks);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_GPU_REACH_H_
