#include "coordinator/reconfiguration.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "coordinator/roster.h"

namespace muster {
namespace {

absl::Status TooFewWorkers(size_t needed, const std::vector<Candidate>& free) {
  const std::string teams = DescribeTeams(free);
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("waiting for workers: ", needed, " needed, ", free.size(), " free",
                                teams.empty() ? "" : ": ", teams),
                   {.reason = ErrorReason::kNotEnoughWorkers, .retriable = true});
}

std::vector<Candidate> ToCandidates(const std::vector<WorkerView>& members) {
  std::vector<Candidate> candidates;
  candidates.reserve(members.size());
  for (const WorkerView& member : members) candidates.push_back(ToCandidate(member.info));
  return candidates;
}

// Its ranks, and all else in their domain if that is not for any other replica.
void TakeFrom(const Topology& topology, bool whole_domain, std::vector<Candidate>& free) {
  const auto has_rank = [&](const Candidate& worker) {
    return FindWorker(topology, worker.worker_id) != nullptr;
  };
  const std::string domain = std::find_if(free.begin(), free.end(), has_rank)->domain;
  std::erase_if(free, [&](const Candidate& worker) {
    return has_rank(worker) || (whole_domain && worker.domain == domain);
  });
}

}  // namespace

Candidate ToCandidate(const WorkerInfo& worker) {
  return {.worker_id = worker.worker_id,
          .incarnation = worker.incarnation,
          .address = worker.address,
          .model = worker.model,
          .local_address = worker.local_address,
          .device = worker.device,
          .build = worker.build,
          .domain = worker.domain};
}

Reconfiguration::Reconfiguration(const Options& options, const Clock& clock, Membership& membership,
                                 RendezvousBoard& board, EventLog& events, WorkerClient& client)
    : options_(options),
      clock_(clock),
      membership_(membership),
      events_(events),
      client_(client),
      range_(options.resize_range.value_or(DefaultCpRange(options.config.cp))),
      ports_{clock,
             membership,
             board,
             events,
             client,
             [this](const std::function<void()>& fn) { Deliver(fn); },
             [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return term_; }},
      term_(options.term),
      operations_({.range = range_, .replica_per_domain = options.replica_per_domain}, ports_,
                  *this),
      departures_(operations_, ports_, *this) {
  absl::MutexLock lock(&mu_);
  shape_.config = options.config;
  SetReplicas(options.replica_per_domain ? 1 : options.config.replicas);
}

Reconfiguration::~Reconfiguration() = default;

void Reconfiguration::OnEnlisted(const WorkerInfo& worker) {
  Deliver([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    last_enlisted_ = clock_.Now();
    events_.Append({.kind = EventKind::kWorkerEnlisted,
                    .worker_id = worker.worker_id,
                    .message = absl::StrCat("worker ", worker.worker_id, " enlisted with ",
                                            worker.model.name, " in ", worker.model.dtype)});
    NoteTerm(worker);
    NoteEpochs(worker);
  });
}

void Reconfiguration::OnLost(const WorkerInfo& worker, const absl::Status& reason) {
  Deliver([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const absl::Status why = TakeDeparture(worker, reason);
    for (Slot& slot : slots_) slot.adoption.Forget(worker.worker_id, worker.incarnation);
    for (Replica* replica : Replicas()) replica->OnWorkerLost(worker, why);
    for (const auto& replica : closing_) replica->OnWorkerLost(worker, why);
  });
  client_.Forget(worker.address, worker.incarnation);
}

void Reconfiguration::OnClientExpired(const WorkerInfo& worker, const ExpiryReport& expiry) {
  events_.Append({.kind = EventKind::kClientExpired,
                  .replica = expiry.replica,
                  .epoch = expiry.epoch,
                  .worker_id = worker.worker_id,
                  .message = DescribeExpiry(expiry)});
}

void Reconfiguration::EmitLost(const WorkerInfo& worker, const absl::Status& reason) {
  Event event{.kind = EventKind::kWorkerLost, .worker_id = worker.worker_id};
  std::string place;
  for (const Replica* replica : AllReplicas()) {
    const auto at = replica->PlaceOf(worker.worker_id, worker.incarnation);
    if (!at.has_value() || at->phase.empty()) continue;
    event.replica = replica->status().replica;
    event.epoch = at->epoch;
    event.rank = at->rank;
    event.phase = at->phase;
    place = absl::StrCat(" with rank ", at->rank.value(), " (", at->phase, ")");
  }
  event.message = absl::StrCat("worker ", worker.worker_id, place, " was lost: ", reason.message());
  events_.Append(std::move(event));
}

void Reconfiguration::Deliver(const std::function<void()>& fn) {
  bool changed = false;
  bool operation_changed = false;
  std::vector<std::function<void()>> unlocked;
  {
    absl::MutexLock lock(&mu_);
    const uint64_t before = TotalVersion();
    const uint64_t operation_before = operations_.version();
    fn();
    DecideAdoptions();
    for (const auto& replica : closing_) {
      if (!replica->Holding()) closed_versions_ += replica->version() + 1;
    }
    std::erase_if(closing_, [](const auto& replica) { return !replica->Holding(); });
    operations_.Advance();
    departures_.Advance();
    PlanReplicas();
    changed = TotalVersion() != before;
    if (changed) NoteServedModel();
    unlocked.swap(unlocked_);
    operation_changed = operations_.version() != operation_before || !unlocked.empty();
    if (operation_changed) told_version_ = TotalVersion();
  }
  for (const auto& it : unlocked) it();
  if (changed) changes_.Notify();
  if (operation_changed) operation_changes_.Notify();
}

void Reconfiguration::Tick() {
  Deliver([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    for (Replica* replica : Replicas()) replica->Tick();
  });
  const bool news = [&] {
    absl::MutexLock lock(&mu_);
    return std::exchange(told_version_, TotalVersion()) != TotalVersion();
  }();
  if (news) operation_changes_.Notify();
}

bool Reconfiguration::AwaitsRanks() const {
  const absl::Time now = clock_.Now();
  return now < succeeded_ + options_.adopt_timeout && now < last_enlisted_ + options_.settle;
}

void Reconfiguration::PlanReplicas() {
  const bool all_serve = std::all_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
    return slot.replica == nullptr || slot.replica->status().state == ReplicaState::kServing;
  });
  if ((all_serve && !options_.replica_per_domain) || AwaitsRanks()) return;
  const std::vector<WorkerView> members = membership_.Snapshot();
  if (options_.replica_per_domain) FollowDomains(members);
  std::vector<Replica*> plannable;
  for (const Slot& slot : slots_) {
    // With its workers goes what it had shrunk to.
    if (IsDeserted(slot, members)) slot.replica->set_shape(shape_);
    const bool free = slot.replica != nullptr && !slot.adoption.waiting();
    if (!free || !slot.replica->Plannable()) continue;
    ReplicaShape shape = slot.replica->shape();
    shape.config.replicas = shape_.config.replicas;  // what it served with may be out of date
    slot.replica->set_shape(std::move(shape));
    plannable.push_back(slot.replica.get());
  }
  if (plannable.empty()) return;
  std::vector<Candidate> free =
      MakeRoster(WorkersFor(nullptr, members), WantedPattern(members)).fit;
  while (!plannable.empty()) {
    const ReplicaShape shape = plannable.front()->shape();
    const auto others = std::stable_partition(plannable.begin(), plannable.end(),
                                              [&](Replica* it) { return it->shape() == shape; });
    const std::vector<Replica*> alike(plannable.begin(), others);
    plannable.erase(plannable.begin(), others);
    const absl::Status fits = CheckFit(shape.config, members);
    if (fits.ok()) FormReplicas(alike, free);
    for (Replica* replica : alike) {
      if (!fits.ok()) replica->RefusePlan(fits);
    }
  }
}

void Reconfiguration::NoteServedModel() {
  const std::optional<muster::Pattern> pattern = PatternOf(*this);
  if (pattern.has_value()) served_model_ = pattern->model;
}

std::optional<Pattern> Reconfiguration::WantedPattern(const std::vector<WorkerView>& members) {
  if (const auto pattern = PatternOf(*this); pattern.has_value()) return pattern;
  if (!served_model_.has_value()) return std::nullopt;
  const muster::Pattern served{.model = *served_model_};
  if (MakeRoster(ToCandidates(members), served).fit.empty()) return std::nullopt;
  return served;
}

absl::StatusOr<ModelSpec> Reconfiguration::WantedModel(const std::vector<WorkerView>& members) {
  if (const auto pattern = WantedPattern(members); pattern.has_value()) return pattern->model;
  return CommonModel(ToCandidates(members));
}

absl::Status Reconfiguration::CheckFit(const ParallelConfig& config,
                                       const std::vector<WorkerView>& members) {
  if (members.empty()) return absl::OkStatus();
  MUSTER_ASSIGN_OR_RETURN(const ModelSpec model, WantedModel(members));
  return CheckConfig(config, model);
}

bool Reconfiguration::Occupied(const std::string& worker_id,
                               const std::vector<const Replica*>& replicas) const {
  return std::any_of(replicas.begin(), replicas.end(),
                     [&](const Replica* replica) { return replica->Occupies(worker_id); }) ||
         std::any_of(slots_.begin(), slots_.end(),
                     [&](const Slot& slot) { return slot.adoption.Holds(worker_id); });
}

std::vector<Candidate> Reconfiguration::FreeWorkers(const std::vector<WorkerView>& members) const {
  const std::vector<const Replica*> replicas = AllReplicas();
  std::vector<Candidate> free;
  for (const WorkerView& member : members) {
    const std::string& id = member.info.worker_id;
    if (Occupied(id, replicas)) continue;
    free.push_back(ToCandidate(member.info));
    free.back().drained = IsDrained(member.info);
  }
  return free;
}

void Reconfiguration::FormReplicas(const std::vector<Replica*>& plannable,
                                   std::vector<Candidate>& free) {
  const ReplicaShape& shape = plannable.front()->shape();
  const auto world = static_cast<size_t>(shape.config.world_size());
  const bool settled = clock_.Now() - last_enlisted_ >= options_.settle;
  const size_t enough_for = ReplicasThatFit(free, world, options_.replica_per_domain);
  const size_t forming =
      enough_for >= plannable.size() || settled ? std::min(enough_for, plannable.size()) : 0;
  if (forming > 0) {
    Form({plannable.begin(), plannable.begin() + static_cast<ptrdiff_t>(forming)}, free);
  }
  const absl::Status too_few = TooFewWorkers((plannable.size() - forming) * world, free);
  for (size_t i = forming; i < plannable.size(); ++i) plannable[i]->WaitFor(too_few);
}

void Reconfiguration::Form(const std::vector<Replica*>& replicas, std::vector<Candidate>& free) {
  const ReplicaShape& shape = replicas.front()->shape();
  PlanRequest request{.config = shape.config,
                      .term = term_,
                      .inventory = free,
                      .one_per_domain = options_.replica_per_domain};
  for (const Replica* replica : replicas) {
    const ReplicaStatus& status = replica->status();
    request.slots.push_back({.replica = status.replica,
                             .epoch = TakeEpoch(status.replica),
                             .previous = status.topology});
  }
  const absl::StatusOr<Plan> plan = PlanTopology(request);
  for (size_t i = 0; i < replicas.size(); ++i) {
    if (!plan.ok()) {
      replicas[i]->RefusePlan(plan.status());
      continue;
    }
    TakeFrom(plan->topologies[i], options_.replica_per_domain, free);
    replicas[i]->Form({.topology = plan->topologies[i],
                       .buckets = shape.buckets,
                       .reserve_bytes = ReserveBytes(shape.config)});
  }
}

std::vector<ReplicaStatus> Reconfiguration::Snapshot() const {
  absl::MutexLock lock(&mu_);
  std::vector<ReplicaStatus> statuses;
  for (const Slot& slot : slots_) {
    if (slot.replica != nullptr) statuses.push_back(slot.replica->status());
  }
  return statuses;
}

Term Reconfiguration::term() const {
  absl::MutexLock lock(&mu_);
  return term_;
}

ParallelConfig Reconfiguration::config() const {
  absl::MutexLock lock(&mu_);
  return shape_.config;
}

Epoch Reconfiguration::NextEpoch(ReplicaIndex replica) const {
  absl::MutexLock lock(&mu_);
  const auto index = static_cast<size_t>(replica.value());
  return Epoch(index < slots_.size() ? slots_[index].last.value() + 1 : 1);
}

uint64_t Reconfiguration::TotalVersion() const {
  uint64_t total = closed_versions_;
  for (const Replica* replica : AllReplicas()) total += replica->version();
  return total;
}

}  // namespace muster
