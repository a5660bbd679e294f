#include "coordinator/coordinator.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace muster {
namespace {

WorkerNote Describe(const Clock& clock, const Membership& membership,
                    const std::string& worker_id) {
  const auto view = membership.Find(worker_id);
  if (!view.has_value()) return {.phase = "", .text = "no longer enlisted"};
  const auto newest = std::max_element(
      view->epochs.begin(), view->epochs.end(),
      [](const EpochReport& a, const EpochReport& b) { return a.epoch < b.epoch; });
  const Progress progress = newest == view->epochs.end() ? Progress{} : newest->progress;
  const absl::Duration age = clock.Now() - view->last_heartbeat;
  return {
      .phase = progress.phase,
      .text = absl::StrCat(DescribeProgress(progress), "; heartbeat ",
                           absl::FormatDuration(absl::Trunc(age, absl::Milliseconds(1))), " ago")};
}

}  // namespace

Coordinator::Coordinator(const Options& options, const Clock& clock, WorkerClient& client)
    : clock_(clock),
      last_tick_ns_(absl::ToUnixNanos(clock.Now())),
      membership_(options.membership, clock, &reconfiguration_),
      events_(clock, options.events),
      rendezvous_(clock,
                  [this, &clock](const std::string& worker_id) {
                    return Describe(clock, membership_, worker_id);
                  }),
      reconfiguration_(options.reconfiguration, clock, membership_, rendezvous_, events_, client),
      fleet_(clock, membership_, reconfiguration_, events_) {}

void Coordinator::Tick() {
  membership_.Tick();
  rendezvous_.Tick();
  reconfiguration_.Tick();
  last_tick_ns_.store(absl::ToUnixNanos(clock_.Now()));
}

void Coordinator::Close() {
  closed_.store(true);
  const absl::Status reason = absl::UnavailableError("the coordinator is stopping");
  membership_.Close(reason);
  rendezvous_.Close(reason);
}

}  // namespace muster
