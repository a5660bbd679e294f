#include "coordinator/roster.h"

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

// " (w1 is drained, w3 is of build 0.0.1, not 0.1.0)"; empty where there is none such.
std::string DrainedAndBuilds(const Roster& roster) {
  std::vector<std::string> texts;
  for (const Candidate& worker : roster.drained) {
    texts.push_back(absl::StrCat(worker.worker_id, " is drained"));
  }
  for (const Candidate& worker : roster.strangers) {
    if (!SameModel(worker.model, roster.pattern->model)) continue;
    texts.push_back(absl::StrCat(worker.worker_id, " is of build ", worker.build, ", not ",
                                 roster.pattern->build));
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

}  // namespace

Roster MakeRoster(const std::vector<Candidate>& workers, const std::optional<Candidate>& pattern) {
  Roster roster{.pattern = pattern};
  for (const Candidate& worker : workers) {
    const bool alike = !pattern.has_value() ||
                       (SameModel(worker.model, pattern->model) && worker.build == pattern->build);
    (worker.drained ? roster.drained : alike ? roster.fit : roster.strangers).push_back(worker);
  }
  return roster;
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
  blame(ErrorReason::kDisagreement, roster.strangers);
  blame(ErrorReason::kWorkerDrained, roster.drained);
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat(message, DrainedAndBuilds(roster), ".", Models(roster)), detail);
}

}  // namespace muster
