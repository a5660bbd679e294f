#ifndef MUSTER_WORKER_COLLECTIVE_WARMUP_VOTE_H_
#define MUSTER_WORKER_COLLECTIVE_WARMUP_VOTE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/collective/group.h"

namespace muster {

// What one rank says after it tried what it could try alone.
struct WarmupVote {
  absl::Status status;
  uint64_t wanted_bytes = 0;
  uint64_t free_bytes = 0;  // of its device, after the attempt

  std::string Encode() const;
  // INVALID_ARGUMENT.
  static absl::StatusOr<WarmupVote> Decode(absl::string_view text);
};

// OK when all ranks of `group` succeeded. Otherwise the same error on all ranks, with the code of
// the first that did not: each failed rank with its reason (its numbers, when it was memory), and
// who succeeded and let go.
absl::Status CountVotes(const Group& group, const std::vector<std::string>& votes);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_WARMUP_VOTE_H_
