#include "coordinator/cache_survey.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace muster {
namespace {

constexpr absl::Duration kDeadline = absl::Seconds(10);

// Owner's lock.
struct Survey {
  size_t missing = 0;
  absl::Status failure;
  CacheSummaries summaries;
  std::function<void(absl::StatusOr<CacheSummaries>)> done;
};

void Take(const RankTarget& leader, absl::StatusOr<CacheSummary> summary, Survey& survey) {
  if (summary.ok()) {
    survey.summaries[leader.replica] = *std::move(summary);
  } else if (survey.failure.ok()) {
    survey.failure = Annotate(
        summary.status(),
        absl::StrCat("cannot plan: the leader of replica ", leader.replica.value(), " (worker ",
                     leader.placement.worker_id, ") does not say what its cache holds"));
  }
  if (--survey.missing > 0) return;
  const auto done = std::move(survey.done);
  survey.failure.ok() ? done(std::move(survey.summaries)) : done(survey.failure);
}

}  // namespace

void SurveyCaches(const std::vector<Topology>& topologies, const Formation::Ports& ports,
                  std::function<void(absl::StatusOr<CacheSummaries>)> done) {
  if (topologies.empty()) return done(CacheSummaries());
  auto survey = std::make_shared<Survey>();
  survey->missing = topologies.size();
  survey->done = std::move(done);
  for (const Topology& topology : topologies) {
    const RankTarget leader{.placement = topology.ranks.front(),
                            .replica = topology.replica,
                            .epoch = topology.epoch,
                            .term = std::max(ports.term(), topology.term)};
    ports.client.DescribeCache(leader, kDeadline,
                               [survey, leader, &ports](absl::StatusOr<CacheSummary> summary) {
                                 ports.deliver([&] { Take(leader, std::move(summary), *survey); });
                               });
  }
}

}  // namespace muster
