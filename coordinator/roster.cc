#include "coordinator/roster.h"

#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"

namespace muster {
namespace {

constexpr size_t kMostNamed = 8;

bool SameModel(const ModelSpec& a, const ModelSpec& b) {
  return a.digest == b.digest && a.dtype == b.dtype;
}

std::string JoinSome(std::vector<std::string> texts) {
  if (texts.size() > kMostNamed) {
    const size_t more = texts.size() - kMostNamed;
    texts.resize(kMostNamed);
    texts.push_back(absl::StrCat(more, " more"));
  }
  return absl::StrJoin(texts, ", ");
}

// "of build 0.0.1, not 0.1.0", "in node-b, not in node-a".
std::string Difference(const Team& team, const Team& wanted) {
  if (team.build != wanted.build) {
    return absl::StrCat("of build ", team.build, ", not ", wanted.build);
  }
  return absl::StrCat("in ", team.domain, ", not in ", wanted.domain);
}

// " (w1 is drained, w3 is of build 0.0.1, not 0.1.0)"; empty where there is none such.
std::string DrainedAndTeams(const Roster& roster) {
  std::vector<std::string> texts;
  for (const Candidate& worker : roster.drained) {
    texts.push_back(absl::StrCat(worker.worker_id, " is drained"));
  }
  for (const Candidate& worker : roster.strangers) {
    if (!SameModel(worker.model, roster.pattern->model)) continue;
    texts.push_back(
        absl::StrCat(worker.worker_id, " is ", Difference(TeamOf(worker), *roster.pattern->team)));
  }
  return texts.empty() ? "" : absl::StrCat(" (", JoinSome(std::move(texts)), ")");
}

// " Workers hold different models: ..."; empty where there is none such.
std::string Models(const Roster& roster) {
  std::vector<std::string> texts;
  for (const Candidate& worker : roster.strangers) {
    if (SameModel(worker.model, roster.pattern->model)) continue;
    texts.push_back(absl::StrCat(worker.worker_id, " holds ", DescribeModel(worker.model)));
  }
  if (texts.empty()) return "";
  return absl::StrCat(" Workers hold different models: ", JoinSome(std::move(texts)),
                      "; the replica holds ", DescribeModel(roster.pattern->model), ".");
}

std::map<Team, size_t> CountTeams(const std::vector<Candidate>& workers) {
  std::map<Team, size_t> counts;
  for (const Candidate& worker : workers) ++counts[TeamOf(worker)];
  return counts;
}

}  // namespace

Team TeamOf(const Candidate& worker) { return {.domain = worker.domain, .build = worker.build}; }

Roster MakeRoster(const std::vector<Candidate>& workers, const std::optional<Pattern>& pattern) {
  const auto alike = [&pattern](const Candidate& worker) {
    if (!pattern.has_value()) return true;
    return SameModel(worker.model, pattern->model) &&
           (!pattern->team.has_value() || TeamOf(worker) == *pattern->team);
  };
  Roster roster{.pattern = pattern};
  for (const Candidate& worker : workers) {
    (worker.drained  ? roster.drained
     : alike(worker) ? roster.fit
                     : roster.strangers)
        .push_back(worker);
  }
  return roster;
}

size_t ReplicasThatFit(const std::vector<Candidate>& workers, size_t world, bool one_per_domain) {
  size_t replicas = 0;
  std::set<std::string> domains;
  for (const auto& [team, count] : CountTeams(workers)) {
    replicas += count / world;
    if (count >= world) domains.insert(team.domain);
  }
  return one_per_domain ? domains.size() : replicas;
}

std::string DescribeTeams(const std::vector<Candidate>& workers) {
  const std::map<Team, size_t> teams = CountTeams(workers);
  if (teams.size() < 2) return "";
  const Team& first = teams.begin()->first;
  bool domains = false;
  bool builds = false;
  for (const auto& [team, count] : teams) {
    domains = domains || team.domain != first.domain;
    builds = builds || team.build != first.build;
  }
  std::vector<std::string> texts;
  for (const auto& [team, count] : teams) {
    texts.push_back(absl::StrCat(count, builds ? " of build " : "", builds ? team.build : "",
                                 domains ? " in " : "", domains ? team.domain : ""));
  }
  return JoinSome(std::move(texts));
}

absl::StatusOr<ModelSpec> ModelOf(const Roster& roster) {
  if (roster.pattern.has_value()) return roster.pattern->model;
  return CommonModel(roster.fit.empty() ? roster.drained : roster.fit);
}

absl::Status TooFewFit(absl::string_view message, size_t missing, const Roster& roster) {
  ErrorDetail detail{.reason = ErrorReason::kNotEnoughWorkers, .retriable = true};
  const auto blame = [&](ErrorReason reason, const std::vector<Candidate>& workers) {
    if (workers.size() < missing) return;
    detail = {.reason = reason};
    for (const Candidate& worker : workers) detail.workers.push_back(worker.worker_id);
  };
  // One that is only elsewhere is as it should be.
  std::vector<Candidate> unlike = roster.strangers;
  std::erase_if(unlike, [&](const Candidate& worker) {
    return SameModel(worker.model, roster.pattern->model) &&
           worker.build == roster.pattern->team->build;
  });
  blame(ErrorReason::kDisagreement, unlike);
  blame(ErrorReason::kWorkerDrained, roster.drained);
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat(message, DrainedAndTeams(roster), ".", Models(roster)), detail);
}

}  // namespace muster
