#include "coordinator/membership.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/text.h"

namespace muster {
namespace {

absl::Status Lost(const std::string& worker_id, absl::string_view why) {
  return MakeError(absl::StatusCode::kUnavailable, why,
                   {.reason = ErrorReason::kRankLost, .workers = {worker_id}, .retriable = true});
}

}  // namespace

absl::StatusOr<LeaseId> Membership::Enlist(const WorkerInfo& worker,
                                           std::shared_ptr<LeaseHolder> holder) {
  absl::MutexLock order(&order_mu_);
  if (const auto old = LeaseOf(worker); old.has_value()) {
    End(*old, Lost(worker.worker_id, "it opened another connection"));
  }
  MUSTER_ASSIGN_OR_RETURN(const LeaseId lease, Admit(worker, std::move(holder)));
  if (listener_ != nullptr) listener_->OnEnlisted(worker);
  return lease;
}

std::optional<LeaseId> Membership::LeaseOf(const WorkerInfo& worker) const {
  absl::MutexLock lock(&mu_);
  const auto found = members_.find(worker.worker_id);
  if (found == members_.end()) return std::nullopt;
  if (found->second.view.info.incarnation != worker.incarnation) return std::nullopt;
  return found->second.lease;
}

absl::StatusOr<LeaseId> Membership::Admit(const WorkerInfo& worker,
                                          std::shared_ptr<LeaseHolder> holder) {
  absl::MutexLock lock(&mu_);
  MUSTER_RETURN_IF_ERROR(closed_);
  if (members_.contains(worker.worker_id)) {
    return absl::AlreadyExistsError(absl::StrCat(
        "a worker named ", worker.worker_id,
        " is enlisted and alive; stop it first, or start this one with another --worker-id"));
  }
  const LeaseId lease(++last_lease_);
  const absl::Time now = clock_.Now();
  members_[worker.worker_id] = {.lease = lease,
                                .view = {.info = worker,
                                         .last_heartbeat = now,
                                         .report = ++last_report_,
                                         .last_progress = now,
                                         .epochs = worker.epochs},
                                .holder = std::move(holder)};
  return lease;
}

void Membership::Heartbeat(LeaseId lease, uint64_t progress, std::vector<EpochReport> epochs) {
  absl::MutexLock lock(&mu_);
  Member* member = FindLease(lease);
  if (member == nullptr) return;
  const absl::Time now = clock_.Now();
  member->view.last_heartbeat = now;
  member->view.report = ++last_report_;
  if (progress != member->view.progress) member->view.last_progress = now;
  member->view.progress = progress;
  member->view.epochs = std::move(epochs);
}

void Membership::ReportExpiries(LeaseId lease, const std::vector<ExpiryReport>& expiries) {
  absl::MutexLock order(&order_mu_);
  const std::optional<WorkerInfo> worker = HolderOf(lease);
  if (!worker.has_value() || listener_ == nullptr) return;
  for (const ExpiryReport& expiry : expiries) listener_->OnClientExpired(*worker, expiry);
}

void Membership::ReportLeaving(LeaseId lease, absl::Duration time_left) {
  absl::MutexLock order(&order_mu_);
  const std::optional<WorkerInfo> worker = HolderOf(lease);
  if (worker.has_value() && listener_ != nullptr) listener_->OnLeaving(*worker, time_left);
}

void Membership::EndLease(LeaseId lease, absl::string_view why) {
  absl::MutexLock order(&order_mu_);
  const std::optional<WorkerInfo> worker = HolderOf(lease);
  if (worker.has_value()) End(lease, Lost(worker->worker_id, why));
}

std::optional<WorkerInfo> Membership::HolderOf(LeaseId lease) const {
  absl::MutexLock lock(&mu_);
  for (const auto& [id, member] : members_) {
    if (member.lease == lease) return member.view.info;
  }
  return std::nullopt;
}

void Membership::Tick() {
  absl::MutexLock order(&order_mu_);
  std::vector<std::pair<LeaseId, absl::Status>> silent;
  {
    absl::MutexLock lock(&mu_);
    const absl::Time now = clock_.Now();
    ForgiveOwnPause(now);
    for (const auto& [id, member] : members_) {
      const absl::Duration age = now - member.view.last_heartbeat;
      if (age <= options_.lease) continue;
      silent.emplace_back(
          member.lease,
          Lost(id, absl::StrCat("it sent no heartbeat for ",
                                absl::FormatDuration(absl::Trunc(age, absl::Milliseconds(1))))));
    }
  }
  for (const auto& [lease, reason] : silent) End(lease, reason);
}

void Membership::ForgiveOwnPause(absl::Time now) {
  const absl::Duration gap = now - std::exchange(last_tick_, now);
  if (last_tick_known_ && gap > options_.lease / 2) {
    for (auto& [id, member] : members_) {
      member.view.last_heartbeat = std::min(now, member.view.last_heartbeat + gap);
    }
  }
  last_tick_known_ = true;
}

void Membership::End(LeaseId lease, const absl::Status& reason) {
  Member ended;
  {
    absl::MutexLock lock(&mu_);
    const Member* member = FindLease(lease);
    if (member == nullptr) return;
    ended = std::move(members_.extract(member->view.info.worker_id).mapped());
  }
  if (listener_ != nullptr) listener_->OnLost(ended.view.info, reason);
  ended.holder->OnLeaseEnded(reason);
}

void Membership::Close(const absl::Status& reason) {
  absl::MutexLock order(&order_mu_);
  std::map<std::string, Member> members;
  {
    absl::MutexLock lock(&mu_);
    closed_ = reason;
    members.swap(members_);
  }
  for (const auto& [id, member] : members) member.holder->OnLeaseEnded(reason);
}

void Membership::ReportProgress(const std::string& worker_id, ReplicaIndex replica, Epoch epoch,
                                const Progress& progress) {
  absl::MutexLock lock(&mu_);
  const auto found = members_.find(worker_id);
  if (found == members_.end()) return;
  found->second.view.last_progress = clock_.Now();
  std::vector<EpochReport>& epochs = found->second.view.epochs;
  const auto report = std::find_if(epochs.begin(), epochs.end(), [&](const EpochReport& r) {
    return r.replica == replica && r.epoch == epoch;
  });
  if (report != epochs.end()) {
    report->progress = progress;
  } else {
    epochs.push_back({.replica = replica,
                      .epoch = epoch,
                      .state = WorkerState::kAssigned,
                      .progress = progress});
  }
}

void Membership::Abort(const std::string& worker_id, Incarnation incarnation,
                       const AbortNotice& notice) {
  const auto holder = FindHolder(worker_id, incarnation);
  if (holder != nullptr) holder->OnEpochAborted(notice);
}

void Membership::LetGo(const std::string& worker_id, Incarnation incarnation,
                       const std::string& message) {
  const auto holder = FindHolder(worker_id, incarnation);
  if (holder != nullptr) holder->OnMayLeave(message);
}

std::shared_ptr<LeaseHolder> Membership::FindHolder(const std::string& worker_id,
                                                    Incarnation incarnation) const {
  absl::MutexLock lock(&mu_);
  const auto found = members_.find(worker_id);
  if (found == members_.end() || found->second.view.info.incarnation != incarnation) return nullptr;
  return found->second.holder;
}

std::vector<WorkerView> Membership::Snapshot() const {
  absl::MutexLock lock(&mu_);
  std::vector<WorkerView> views;
  for (const auto& [id, member] : members_) views.push_back(member.view);
  return views;
}

std::optional<WorkerView> Membership::Find(const std::string& worker_id) const {
  absl::MutexLock lock(&mu_);
  const auto found = members_.find(worker_id);
  if (found == members_.end()) return std::nullopt;
  return found->second.view;
}

Membership::Member* Membership::FindLease(LeaseId lease) {
  for (auto& [id, member] : members_) {
    if (member.lease == lease) return &member;
  }
  return nullptr;
}

std::string DescribeProgress(const Progress& progress) {
  if (progress.phase.empty()) return "in no phase";
  std::string text = absl::StrCat("in ", progress.phase);
  if (progress.total > 0) {
    absl::StrAppend(&text, ", ", progress.done, " of ", progress.total, " ", progress.unit);
  }
  return text;
}

std::string DescribeExpiry(const ExpiryReport& expiry) {
  return absl::StrCat("client ", QuotedId(expiry.client_id), " was silent for ",
                      InUnits(expiry.lease), ": ",
                      Counted(static_cast<uint64_t>(expiry.sequences), "sequence"), " and ",
                      Counted(expiry.kv_blocks, "KV block"), " were given back");
}

}  // namespace muster
