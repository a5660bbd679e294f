#include "coordinator/reconfiguration.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr uint64_t kHighestEpoch = uint64_t{1} << 62;

// Whether the members' model can be split so; OK as long as there are none.
absl::Status CheckFit(const ParallelConfig& config, const std::vector<WorkerView>& members) {
  if (members.empty()) return absl::OkStatus();
  std::vector<Candidate> all;
  all.reserve(members.size());
  for (const WorkerView& member : members) all.push_back(ToCandidate(member.info));
  MUSTER_ASSIGN_OR_RETURN(const ModelSpec model, CommonModel(all));
  return CheckConfig(config, model);
}

absl::Status TooFewWorkers(size_t needed, size_t free) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("waiting for workers: ", needed, " needed, ", free, " free"),
                   {.reason = ErrorReason::kNotEnoughWorkers, .retriable = true});
}

}  // namespace

Candidate ToCandidate(const WorkerInfo& worker) {
  return {.worker_id = worker.worker_id,
          .incarnation = worker.incarnation,
          .address = worker.address,
          .model = worker.model,
          .local_address = worker.local_address,
          .device = worker.device};
}

Reconfiguration::Reconfiguration(const Options& options, const Clock& clock, Membership& membership,
                                 RendezvousBoard& board, EventLog& events, WorkerClient& client)
    : options_(options),
      clock_(clock),
      membership_(membership),
      events_(events),
      client_(client),
      range_(options.resize_range.value_or(DefaultCpRange(options.config.cp))),
      ports_{clock,  membership, board,
             events, client,     [this](const std::function<void()>& fn) { Deliver(fn); }},
      operations_({.term = options.term, .range = range_}, ports_, *this) {
  Replica::Options replica_options = options.replica;
  replica_options.term = options.term;
  absl::MutexLock lock(&mu_);
  shape_.config = options.config;
  last_epochs_.resize(static_cast<size_t>(options.config.replicas));
  for (int i = 0; i < options.config.replicas; ++i) {
    replicas_.push_back(std::make_unique<Replica>(ReplicaIndex(i), replica_options, ports_));
    replicas_.back()->set_shape(shape_);
  }
}

Reconfiguration::~Reconfiguration() = default;

void Reconfiguration::OnEnlisted(const WorkerInfo& worker) {
  Deliver([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    last_enlisted_ = clock_.Now();
    events_.Append({.kind = EventKind::kWorkerEnlisted,
                    .worker_id = worker.worker_id,
                    .message = absl::StrCat("worker ", worker.worker_id, " enlisted with ",
                                            worker.model.name, " in ", worker.model.dtype)});
    NoteEpochs(worker);
  });
}

// What a worker holds from an earlier lease is of no epoch that runs: it is given back, and never
// numbered again.
void Reconfiguration::NoteEpochs(const WorkerInfo& worker) {
  for (const EpochReport& held : worker.epochs) {
    const auto index = static_cast<size_t>(held.replica.value());
    // Numbers that nobody reaches by counting would leave none for the next topology.
    if (index < last_epochs_.size() && held.epoch.value() <= kHighestEpoch) {
      last_epochs_[index] = std::max(last_epochs_[index], held.epoch);
    }
    client_.Release({.placement = {.worker_id = worker.worker_id,
                                   .incarnation = worker.incarnation,
                                   .address = worker.address},
                     .replica = held.replica,
                     .epoch = held.epoch,
                     .term = options_.term},
                    absl::OkStatus(), options_.replica.release_timeout, [](const absl::Status&) {});
  }
}

void Reconfiguration::OnLost(const WorkerInfo& worker, const absl::Status& reason) {
  Deliver([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    EmitLost(worker, reason);
    for (auto& replica : replicas_) replica->OnWorkerLost(worker, reason);
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
  for (const auto& replica : replicas_) {
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
    operations_.Advance();
    PlanReplicas();
    changed = TotalVersion() != before;
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
    for (auto& replica : replicas_) replica->Tick();
  });
  const bool news = [&] {
    absl::MutexLock lock(&mu_);
    return std::exchange(told_version_, TotalVersion()) != TotalVersion();
  }();
  if (news) operation_changes_.Notify();
}

void Reconfiguration::PlanReplicas() {
  std::vector<Replica*> plannable;
  for (auto& replica : replicas_) {
    if (replica->Plannable()) plannable.push_back(replica.get());
  }
  if (plannable.empty()) return;
  const std::vector<WorkerView> members = membership_.Snapshot();
  std::vector<Candidate> free = FreeWorkers(members);
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

std::vector<Candidate> Reconfiguration::FreeWorkers(const std::vector<WorkerView>& members) const {
  std::vector<Candidate> free;
  for (const WorkerView& member : members) {
    const bool occupied = std::any_of(replicas_.begin(), replicas_.end(), [&](const auto& replica) {
      return replica->Occupies(member.info.worker_id);
    });
    if (!occupied && !drained_.contains(member.info.worker_id)) {
      free.push_back(ToCandidate(member.info));
    }
  }
  return free;
}

void Reconfiguration::FormReplicas(const std::vector<Replica*>& plannable,
                                   std::vector<Candidate>& free) {
  const ReplicaShape& shape = plannable.front()->shape();
  const auto world = static_cast<size_t>(shape.config.world_size());
  const bool settled = clock_.Now() - last_enlisted_ >= options_.settle;
  const size_t enough_for = free.size() / world;
  const size_t forming =
      enough_for >= plannable.size() || settled ? std::min(enough_for, plannable.size()) : 0;
  const absl::Status too_few =
      TooFewWorkers((plannable.size() - forming) * world, free.size() - forming * world);
  for (size_t i = forming; i < plannable.size(); ++i) plannable[i]->WaitFor(too_few);
  if (forming == 0) return;

  PlanRequest request{.config = shape.config, .term = options_.term, .inventory = free};
  for (size_t i = 0; i < forming; ++i) {
    const ReplicaStatus& status = plannable[i]->status();
    request.slots.push_back({.replica = status.replica,
                             .epoch = TakeEpoch(status.replica),
                             .previous = status.topology});
  }
  const absl::StatusOr<Plan> plan = PlanTopology(request);
  for (size_t i = 0; i < forming; ++i) {
    if (!plan.ok()) {
      plannable[i]->RefusePlan(plan.status());
      continue;
    }
    std::erase_if(free, [&](const Candidate& worker) {
      const auto& ranks = plan->topologies[i].ranks;
      return std::any_of(ranks.begin(), ranks.end(), [&](const RankPlacement& rank) {
        return rank.worker_id == worker.worker_id;
      });
    });
    plannable[i]->Form({.topology = plan->topologies[i],
                        .buckets = shape.buckets,
                        .reserve_bytes = ReserveBytes(shape.config)});
  }
}

std::vector<ReplicaStatus> Reconfiguration::Snapshot() const {
  absl::MutexLock lock(&mu_);
  std::vector<ReplicaStatus> statuses;
  for (const auto& replica : replicas_) statuses.push_back(replica->status());
  return statuses;
}

ParallelConfig Reconfiguration::config() const {
  absl::MutexLock lock(&mu_);
  return shape_.config;
}

Epoch Reconfiguration::NextEpoch(ReplicaIndex replica) const {
  absl::MutexLock lock(&mu_);
  const auto index = static_cast<size_t>(replica.value());
  return Epoch(index < last_epochs_.size() ? last_epochs_[index].value() + 1 : 1);
}

uint64_t Reconfiguration::TotalVersion() const {
  uint64_t total = 0;
  for (const auto& replica : replicas_) total += replica->version();
  return total;
}

}  // namespace muster
