// How a worker leaves its fleet in order.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/logging.h"
#include "base/text.h"
#include "worker/worker_daemon.h"

namespace muster {
namespace {

// "rank 1 of epoch 3 of replica 0 (SERVING)".
std::string Describe(const std::vector<EpochStatus>& held) {
  std::vector<std::string> ranks;
  for (const EpochStatus& it : held) {
    ranks.push_back(absl::StrCat("rank ", it.rank.value(), " of epoch ", it.report.epoch.value(),
                                 " of replica ", it.report.replica.value(), " (",
                                 WorkerStateName(it.report.state), ")"));
  }
  return absl::StrJoin(ranks, ", ");
}

}  // namespace

void WorkerDaemon::Drain(absl::Duration timeout) {
  health_.Draining();
  departure_.Begin(timeout);
  Logger().Info("leaving the fleet, within ", InUnits(timeout));
  membership_->SendHeartbeat();
  switch (departure_.Await([this] { return epochs_.Statuses().empty(); })) {
    case Departure::Outcome::kReleased:
      return Logger().Info("left the fleet", departure_.message().empty() ? "" : ": ",
                           departure_.message());
    case Departure::Outcome::kAlone:
      return FinishRequests();
    case Departure::Outcome::kTimeout:
      return Logger().Warning("not handed over within ", InUnits(timeout), ": ",
                              Describe(epochs_.Statuses()));
    case Departure::Outcome::kCutShort:
      return;
  }
}

void WorkerDaemon::FinishRequests() {
  const std::vector<EpochStatus> held = epochs_.Statuses();
  if (held.empty()) return;
  Logger().Warning("there is no coordinator to hand over to: ", Describe(held), " ends");
  const auto serving = epochs_.Serving();
  if (!serving.ok()) return;
  Engine& engine = (*serving)->engine();
  const absl::Status drained = engine.Drain(*departure_.time_left());
  const int sequences = engine.capacity().sequences;
  Logger().Warning(drained.ok() ? "all requests are answered" : drained.message(), "; ",
                   Counted(static_cast<uint64_t>(sequences), "sequence"), " held");
}

}  // namespace muster
