#include "worker/service/health_reporter.h"

#include <grpcpp/health_check_service_interface.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/text.h"

namespace muster {
namespace {

constexpr const char* kReady[] = {"", "muster.v1.Inference"};
constexpr char kControl[] = "muster.v1.WorkerControl";

}  // namespace

HealthReporter::HealthReporter(const Options& options, const Clock& clock)
    : options_(options),
      clock_(clock),
      observed_(clock.Now()),
      step_moved_(clock.Now()),
      progressed_(clock.Now()) {}

void HealthReporter::Attach(grpc::HealthCheckServiceInterface* service) {
  absl::MutexLock lock(&mu_);
  service_ = service;
  if (service_ == nullptr) return;
  service_->SetServingStatus(kControl, true);
  reported_ = AllPass(Ready(false));
  for (const char* name : kReady) service_->SetServingStatus(name, reported_);
}

void HealthReporter::Enlisted(bool enlisted) {
  absl::MutexLock lock(&mu_);
  enlisted_ = enlisted;
  was_enlisted_ = was_enlisted_ || enlisted;
}

void HealthReporter::EpochActivated(ReplicaIndex replica, Epoch epoch) {
  absl::MutexLock lock(&mu_);
  active_.insert({replica, epoch});
  Report();
}

void HealthReporter::EpochEnded(ReplicaIndex replica, Epoch epoch) {
  absl::MutexLock lock(&mu_);
  active_.erase({replica, epoch});
  Report();
}

void HealthReporter::Draining() {
  absl::MutexLock lock(&mu_);
  draining_ = true;
  Report();
}

void HealthReporter::Observe(WorkObservation observation) {
  absl::MutexLock lock(&mu_);
  const absl::Time now = clock_.Now();
  if (observation.requests_in_flight == 0 || observation.steps != last_.steps) step_moved_ = now;
  if (observation.preparing.empty() || observation.progress != last_.progress) progressed_ = now;
  last_ = std::move(observation);
  observed_ = now;
  Report();
}

std::vector<HealthCheck> HealthReporter::ReadyChecks(bool standby_counts) const {
  absl::MutexLock lock(&mu_);
  return Ready(standby_counts);
}

std::vector<HealthCheck> HealthReporter::Ready(bool standby_counts) const {
  return {EpochCheck(standby_counts), RanksCheck(), StepsCheck(), DrainCheck()};
}

std::vector<HealthCheck> HealthReporter::StartupChecks() const {
  absl::MutexLock lock(&mu_);
  HealthCheck enlisted{.name = "enlisted", .passes = was_enlisted_};
  enlisted.reason = enlisted_       ? "the coordinator has taken this worker in"
                    : was_enlisted_ ? "the coordinator had taken this worker in, and is gone"
                                    : "no coordinator has taken this worker in yet";
  const absl::Duration silence = clock_.Now() - progressed_;
  HealthCheck phase{.name = "phase", .passes = silence < options_.startup_timeout};
  phase.reason = last_.preparing.empty() ? "nothing is being prepared"
                                         : absl::StrCat(absl::StrJoin(last_.preparing, "; "),
                                                        "; got on ", InUnits(silence), " ago");
  return {enlisted, phase};
}

std::vector<HealthCheck> HealthReporter::LiveChecks() const {
  absl::MutexLock lock(&mu_);
  const absl::Duration silence = clock_.Now() - observed_;
  return {{.name = "loop",
           .passes = silence < options_.observe_timeout,
           .reason = absl::StrCat("looked after its epochs ", InUnits(silence), " ago")}};
}

HealthCheck HealthReporter::EpochCheck(bool standby_counts) const {
  HealthCheck check{.name = "epoch", .passes = !active_.empty()};
  if (check.passes) {
    const auto& [replica, epoch] = *active_.rbegin();
    check.reason = absl::StrCat("replica ", replica.value(), " epoch ", epoch.value(), " serves");
  } else if (!last_.preparing.empty()) {
    check.reason = absl::StrJoin(last_.preparing, "; ");
  } else if (!last_.unformed.empty()) {
    check.reason = absl::StrCat("it could not be formed: ", last_.unformed);
  } else {
    check.reason = enlisted_ ? "standby: this worker has no rank" : "this worker is not enlisted";
    check.passes = standby_counts && enlisted_ && last_.failed.empty();
  }
  return check;
}

HealthCheck HealthReporter::RanksCheck() const {
  return {.name = "ranks",
          .passes = last_.failed.empty(),
          .reason = last_.failed.empty() ? "no rank is known to have failed"
                                         : absl::StrJoin(last_.failed, "; ")};
}

HealthCheck HealthReporter::StepsCheck() const {
  if (last_.requests_in_flight == 0) return {"steps", true, "no request waits"};
  // As of the last observation: what passes here is what `service_` was told.
  const absl::Duration silence = observed_ - step_moved_;
  return {
      .name = "steps",
      .passes = silence < options_.stall_timeout,
      .reason = absl::StrCat(Counted(static_cast<uint64_t>(last_.requests_in_flight), "request"),
                             " in flight, and a step ended ", InUnits(silence), " ago")};
}

HealthCheck HealthReporter::DrainCheck() const {
  return {"drain", !draining_, draining_ ? "this worker is leaving" : "this worker stays"};
}

void HealthReporter::Report() {
  const bool serving = AllPass(Ready(false));
  if (service_ == nullptr || serving == reported_) return;
  reported_ = serving;
  for (const char* name : kReady) service_->SetServingStatus(name, serving);
}

}  // namespace muster
