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
  std::vector<Candidate> strangers;  // not like `pattern`
  std::optional<Pattern> pattern;
};

// Sorts workers by whether they are drained, and like `pattern`. Without one nobody is a stranger.
Roster MakeRoster(const std::vector<Candidate>& workers, const std::optional<Pattern>& pattern);

// How many replicas of `world` ranks these workers suffice for, each of one team; at most one in a
// domain where that is asked.
size_t ReplicasThatFit(const std::vector<Candidate>& workers, size_t world,
                       bool one_per_domain = false);

// "3 in node-a, 1 of build 0.0.1 in node-b": who belongs together, by as much as differs between
// them; empty where all do.
std::string DescribeTeams(const std::vector<Candidate>& workers);

// The pattern's; without one, that of all that are fit. Errors: those of CommonModel.
absl::StatusOr<ModelSpec> ModelOf(const Roster& roster);

// FAILED_PRECONDITION: `message`, which has the numbers and no full stop, and who is enlisted and
// not fit. The reason is WORKER_DRAINED or DISAGREEMENT, with the drained or the strangers named,
// where they would make up for the `missing` workers, and NOT_ENOUGH_WORKERS otherwise.
absl::Status TooFewFit(absl::string_view message, size_t missing, const Roster& roster);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_ROSTER_H_
