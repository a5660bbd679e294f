// Which of the workers that are enlisted can get a rank beside those that have one.
#ifndef MUSTER_COORDINATOR_ROSTER_H_
#define MUSTER_COORDINATOR_ROSTER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/placement.h"

namespace muster {

// Workers that can get a rank, and those that cannot.
struct Roster {
  std::vector<Candidate> fit;
  std::vector<Candidate> drained;
  std::vector<Candidate> strangers;  // of another model or build than `pattern`
  std::optional<Candidate> pattern;
};

// Sorts workers by whether they are drained, and like `pattern`: of its model in the same type, and
// of its build. Without a pattern nobody is a stranger.
Roster MakeRoster(const std::vector<Candidate>& workers, const std::optional<Candidate>& pattern);

// The pattern's; without one, that of all that are fit. Errors: those of CommonModel.
absl::StatusOr<ModelSpec> ModelOf(const Roster& roster);

// FAILED_PRECONDITION: `message`, which has the numbers and no full stop, and who is enlisted and
// not fit. The reason is WORKER_DRAINED or DISAGREEMENT, with the drained or the strangers named,
// where they would make up for the `missing` workers, and NOT_ENOUGH_WORKERS otherwise.
absl::Status TooFewFit(absl::string_view message, size_t missing, const Roster& roster);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_ROSTER_H_
