#include "worker/engine/worker_epochs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr size_t kMaxBuckets = 32;

std::string Named(ReplicaIndex replica, Epoch epoch) {
  return absl::StrCat("epoch ", epoch.value(), " of replica ", replica.value());
}

absl::Status Invalid(Epoch epoch, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = ErrorReason::kInvalidRequest, .epoch = epoch});
}

absl::Status Stale(Epoch epoch, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, message,
                   {.reason = ErrorReason::kStaleEpoch, .epoch = epoch});
}

absl::Status NotServing(absl::string_view message, ErrorDetail detail) {
  detail.reason = ErrorReason::kWrongState;
  detail.retriable = true;
  return MakeError(absl::StatusCode::kUnavailable, message, detail);
}

absl::Status CheckBuckets(const std::vector<int>& buckets, int max_rows) {
  int above = max_rows + 1;
  for (const int bucket : buckets) {
    if (bucket < 1 || bucket >= above || BucketOf(bucket) != bucket) {
      return MakeError(
          absl::StatusCode::kInvalidArgument,
          absl::StrCat("buckets of ", absl::StrJoin(buckets, ", "), " rows; they must be powers ",
                       "of two, largest first, at most ", max_rows),
          {.reason = ErrorReason::kInvalidRequest});
    }
    above = bucket;
  }
  if (buckets.size() <= kMaxBuckets) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(buckets.size(), " buckets; at most ", kMaxBuckets),
                   {.reason = ErrorReason::kInvalidRequest});
}

// Whether they differ in nothing but the term of who speaks of them.
bool SamePlaces(const Topology& left, const Topology& right) {
  return left.config == right.config && left.ranks == right.ranks;
}

// The same listener, which also counts.
EpochListener Counting(EpochListener listener, std::shared_ptr<std::atomic<uint64_t>> progress) {
  listener.on_progress = [counted = std::move(listener.on_progress),
                          progress = std::move(progress)](const Progress& made) {
    progress->fetch_add(1);
    counted(made);
  };
  return listener;
}

// Why requests are not for a worker that holds this epoch.
absl::Status NotLeading(const HeldEpoch& held) {
  const EpochStatus status = held.Status();
  const std::string epoch = Named(status.report.replica, status.report.epoch);
  if (!status.failure.ok()) {
    return NotServing(absl::StrCat(epoch, " has failed: ", status.failure.message()),
                      DetailOf(status.failure));
  }
  if (held.rank() == GlobalRank(0)) {
    return NotServing(absl::StrCat(epoch, " is ", WorkerStateName(status.report.state),
                                   " and takes no requests now"),
                      {.epoch = status.report.epoch});
  }
  const RankPlacement& leader = held.topology().ranks.front();
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("this worker is rank ", held.rank().value(), " of ", epoch,
                                "; requests go to rank 0, worker ", leader.worker_id),
                   {.reason = ErrorReason::kNotLeader,
                    .epoch = status.report.epoch,
                    .ranks = {leader.rank},
                    .workers = {leader.worker_id}});
}

}  // namespace

WorkerEpochs::WorkerEpochs(Options options, Parts parts)
    : options_(std::move(options)),
      progress_(std::make_shared<std::atomic<uint64_t>>(0)),
      parts_{.model = parts.model,
             .backend = parts.backend,
             .make_rendezvous = std::move(parts.make_rendezvous),
             .listener = Counting(std::move(parts.listener), progress_)} {}

WorkerEpochs::~WorkerEpochs() {
  Close(MakeError(absl::StatusCode::kUnavailable,
                  absl::StrCat("worker ", options_.worker_id, " is ending"),
                  {.reason = ErrorReason::kWrongState, .retriable = true}));
}

absl::Status WorkerEpochs::Assign(const EpochCall& call, const RankOrder& order) {
  MUSTER_RETURN_IF_ERROR(CheckPlacement(call, order.topology, order.rank));
  MUSTER_RETURN_IF_ERROR(CheckBuckets(order.buckets, options_.context.limits.max_rows));
  Reap();
  absl::MutexLock lock(&mu_);
  MUSTER_RETURN_IF_ERROR(closed_);
  MUSTER_RETURN_IF_ERROR(CheckTerm(call.term));
  const auto found = held_.find({call.replica, call.epoch});
  if (found != held_.end()) {
    return found->second->CheckSameAssignment(call.request_id, order.topology, order.rank);
  }
  MUSTER_RETURN_IF_ERROR(CheckNew({call.replica, call.epoch}));
  return Hold(call, order);
}

absl::Status WorkerEpochs::CheckPlacement(const EpochCall& call, const Topology& topology,
                                          GlobalRank rank) const {
  if (topology.replica != call.replica || topology.epoch != call.epoch ||
      topology.term != call.term) {
    return Invalid(call.epoch,
                   absl::StrCat("the topology is ", Named(topology.replica, topology.epoch),
                                " in term ", topology.term.value(), "; the call is about ",
                                Named(call.replica, call.epoch), " in term ", call.term.value()));
  }
  if (rank.value() < 0 || static_cast<size_t>(rank.value()) >= topology.ranks.size()) {
    return Invalid(call.epoch, absl::StrCat("rank ", rank.value(), " is outside the topology of ",
                                            topology.ranks.size(), " ranks"));
  }
  const RankPlacement& named = topology.ranks[static_cast<size_t>(rank.value())];
  if (named.worker_id != options_.worker_id) {
    return Invalid(call.epoch, absl::StrCat("the topology gives rank ", rank.value(), " to worker ",
                                            named.worker_id, "; this is ", options_.worker_id));
  }
  if (named.incarnation != options_.incarnation) {
    return Invalid(call.epoch,
                   absl::StrCat("the topology gives rank ", rank.value(), " to worker ",
                                named.worker_id, " as it was before it was started again"));
  }
  return absl::OkStatus();
}

absl::Status WorkerEpochs::CheckTerm(Term term) {
  if (term < term_) {
    return Stale(Epoch(),
                 absl::StrCat("the call is of term ", term.value(), "; a coordinator of term ",
                              term_.value(), " has taken over"));
  }
  term_ = term;
  return absl::OkStatus();
}

absl::Status WorkerEpochs::CheckNew(const Key& key) const {
  const Epoch newest = NewestOf(key.first);
  if (key.second <= newest) {
    return Stale(newest,
                 absl::StrCat(Named(key.first, key.second), " cannot be assigned: this worker has ",
                              "known epoch ", newest.value(), " already"));
  }
  if (held_.size() < kMaxHeld) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("this worker holds ", held_.size(), " epochs; at most ", kMaxHeld));
}

absl::StatusOr<std::optional<EpochContext::Predecessor>> WorkerEpochs::FindPredecessor(
    const RankOrder& order) const {
  if (!order.predecessor.has_value()) return std::nullopt;
  const Topology& before = *order.predecessor;
  if (before.replica != order.topology.replica || before.epoch >= order.topology.epoch) {
    return Invalid(order.topology.epoch,
                   absl::StrCat(Named(order.topology.replica, order.topology.epoch),
                                " cannot follow ", Named(before.replica, before.epoch)));
  }
  const std::string& leader = order.topology.ranks.front().worker_id;
  if (before.ranks.empty() || before.ranks.front().worker_id != leader) {
    return Invalid(order.topology.epoch,
                   absl::StrCat(Named(order.topology.replica, order.topology.epoch), " is led by ",
                                leader, ", which does not lead the epoch that it is to follow"));
  }
  EpochContext::Predecessor predecessor{.topology = before};
  const bool has_rank =
      std::any_of(before.ranks.begin(), before.ranks.end(), [this](const RankPlacement& it) {
        return it.worker_id == options_.worker_id && it.incarnation == options_.incarnation;
      });
  if (!has_rank) return predecessor;
  const auto held = held_.find({before.replica, before.epoch});
  if (held == held_.end() || !SamePlaces(held->second->topology(), before)) {
    return Stale(NewestOf(before.replica),
                 absl::StrCat(Named(before.replica, before.epoch), ", which ",
                              Named(order.topology.replica, order.topology.epoch),
                              " is to follow, is not held here"));
  }
  MUSTER_ASSIGN_OR_RETURN(predecessor.handover, held->second->BeginHandover());
  return predecessor;
}

absl::Status WorkerEpochs::Hold(const EpochCall& call, const RankOrder& order) {
  const Key key{call.replica, call.epoch};
  EpochContext::Options context = options_.context;
  context.reserve_bytes = order.reserve_bytes;
  if (!order.buckets.empty()) context.buckets = order.buckets;
  MUSTER_ASSIGN_OR_RETURN(std::optional<EpochContext::Predecessor> predecessor,
                          FindPredecessor(order));
  // What comes to nothing must not keep others from following.
  const std::shared_ptr<Handover> handover =
      predecessor.has_value() ? predecessor->handover : nullptr;
  auto held = HeldEpoch::Create({.context = std::move(context),
                                 .request_id = call.request_id,
                                 .listener = parts_.listener,
                                 .on_released = [this, key] { OnReleased(key); }},
                                {.topology = order.topology,
                                 .rank = order.rank,
                                 .predecessor = std::move(predecessor),
                                 .model = parts_.model,
                                 .backend = parts_.backend,
                                 .rendezvous = parts_.make_rendezvous(call.replica, call.epoch)});
  if (!held.ok()) {
    if (handover != nullptr) handover->Leave();
    return held.status();
  }
  held_.emplace(key, *std::move(held));
  newest_[call.replica] = call.epoch;
  unformed_.clear();
  progress_->fetch_add(1);
  return absl::OkStatus();
}

void WorkerEpochs::Run(EpochCommand command, const EpochCall& call, absl::Duration timeout,
                       EpochWatcher watcher) {
  const auto held = Find(command, call);
  if (!held.ok()) return watcher.on_done(held.status());
  if (*held == nullptr) return watcher.on_done(EpochOutcome{});
  // The notice of a failure comes another way, and may come later than the Release that follows it.
  if (!call.why.ok()) (*held)->Abort(call.why);
  (*held)->Submit(command, call, timeout, std::move(watcher));
}

absl::StatusOr<std::shared_ptr<HeldEpoch>> WorkerEpochs::Find(EpochCommand command,
                                                              const EpochCall& call) {
  absl::MutexLock lock(&mu_);
  MUSTER_RETURN_IF_ERROR(CheckTerm(call.term));
  const auto found = held_.find({call.replica, call.epoch});
  if (found != held_.end()) return found->second;
  const Epoch newest = NewestOf(call.replica);
  if (command != EpochCommand::kRelease) {
    return Stale(newest, absl::StrCat(Named(call.replica, call.epoch), " is not held here",
                                      call.epoch <= newest ? " any more" : ""));
  }
  newest_[call.replica] = std::max(newest, call.epoch);
  return nullptr;
}

void WorkerEpochs::Abort(ReplicaIndex replica, Epoch epoch, const absl::Status& reason) {
  std::shared_ptr<HeldEpoch> held;
  {
    absl::MutexLock lock(&mu_);
    const auto found = held_.find({replica, epoch});
    if (found == held_.end()) return;
    held = found->second;
  }
  held->Abort(reason);
}

void WorkerEpochs::NoteTerm(Term term) {
  absl::MutexLock lock(&mu_);
  term_ = std::max(term_, term);
}

absl::StatusOr<std::shared_ptr<const ServingEpoch>> WorkerEpochs::Serving() const {
  const std::vector<std::shared_ptr<HeldEpoch>> all = Held();
  std::shared_ptr<const ServingEpoch> newest;
  for (const auto& held : all) {
    std::shared_ptr<const ServingEpoch> serving = held->serving();
    if (serving == nullptr) continue;
    if (newest == nullptr || serving->epoch > newest->epoch) newest = std::move(serving);
  }
  if (newest != nullptr) return newest;
  if (all.empty()) return NotServing("this worker holds no epoch now", {});
  return NotLeading(**std::max_element(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return a->topology().epoch < b->topology().epoch;
  }));
}

std::vector<Topology> WorkerEpochs::ServingTopologies() const {
  std::map<ReplicaIndex, std::shared_ptr<HeldEpoch>> newest;
  for (const auto& held : Held()) {  // by epoch within a replica
    if (held->Status().report.state != WorkerState::kServing) continue;
    newest[held->topology().replica] = held;
  }
  std::vector<Topology> topologies;
  for (const auto& [replica, held] : newest) topologies.push_back(held->topology());
  return topologies;
}

Term WorkerEpochs::term() const {
  absl::MutexLock lock(&mu_);
  return term_;
}

std::vector<EpochStatus> WorkerEpochs::Statuses() const {
  std::vector<EpochStatus> statuses;
  for (const auto& held : Held()) statuses.push_back(held->Status());
  return statuses;
}

std::vector<EpochReport> WorkerEpochs::Reports() const {
  std::vector<EpochReport> reports;
  for (EpochStatus& status : Statuses()) reports.push_back(std::move(status.report));
  return reports;
}

std::vector<EpochReport> WorkerEpochs::History() const {
  std::vector<EpochReport> reports = Reports();
  absl::MutexLock lock(&mu_);
  for (const auto& [replica, epoch] : newest_) {
    const auto is_it = [&, replica = replica, epoch = epoch](const EpochReport& report) {
      return report.replica == replica && report.epoch == epoch;
    };
    if (std::any_of(reports.begin(), reports.end(), is_it)) continue;
    if (reports.size() == kMaxHeld) break;
    reports.push_back({.replica = replica, .epoch = epoch, .state = WorkerState::kEnlisted});
  }
  return reports;
}

void WorkerEpochs::Close(const absl::Status& reason) {
  {
    absl::MutexLock lock(&mu_);
    if (closed_.ok()) closed_ = reason;
  }
  for (const auto& held : Held()) {
    held->Abort(reason);
    held->Submit(EpochCommand::kRelease, EpochCall(), absl::ZeroDuration(),
                 {.on_done = [](const absl::StatusOr<EpochOutcome>&) {}});
  }
  {
    absl::MutexLock lock(&mu_);
    const auto none = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return held_.empty(); };
    mu_.Await(absl::Condition(&none));
  }
  Reap();
}

Epoch WorkerEpochs::NewestOf(ReplicaIndex replica) const {
  const auto found = newest_.find(replica);
  return found == newest_.end() ? Epoch() : found->second;
}

std::string WorkerEpochs::unformed() const {
  absl::MutexLock lock(&mu_);
  return unformed_;
}

void WorkerEpochs::OnReleased(const Key& key) {
  // Its own thread runs this, and must not be the one to let go of it last.
  const HeldEpoch* const held = [&] {
    absl::MutexLock lock(&mu_);
    return held_.at(key).get();
  }();
  const absl::Status why = held->WhyNotFormed();
  absl::MutexLock lock(&mu_);
  if (!why.ok()) unformed_ = absl::StrCat(Named(key.first, key.second), ": ", why.message());
  released_.push_back(std::move(held_.extract(key).mapped()));
  progress_->fetch_add(1);
}

void WorkerEpochs::Reap() {
  std::vector<std::shared_ptr<HeldEpoch>> released;
  {
    absl::MutexLock lock(&mu_);
    released.swap(released_);
  }
}

std::vector<std::shared_ptr<HeldEpoch>> WorkerEpochs::Held() const {
  absl::MutexLock lock(&mu_);
  std::vector<std::shared_ptr<HeldEpoch>> all;
  for (const auto& [key, held] : held_) all.push_back(held);
  return all;
}

}  // namespace muster
