// What workers bring from an earlier coordinator: its term, and the epochs that they hold.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/reconfiguration.h"

namespace muster {
namespace {

// Numbers that nobody reaches by counting would leave none for the next topology.
constexpr uint64_t kHighestEpoch = uint64_t{1} << 62;

bool HasRank(const Topology& topology, const WorkerInfo& worker) {
  const RankPlacement* const rank = FindWorker(topology, worker.worker_id);
  return rank != nullptr && rank->incarnation == worker.incarnation;
}

}  // namespace

// A worker that was welcomed before has this coordinator's own term from there.
void Reconfiguration::NoteTerm(const WorkerInfo& worker) {
  const auto known = welcomed_.find(worker.worker_id);
  const bool again = known != welcomed_.end() && known->second == worker.incarnation;
  const bool inherited = !again && worker.term > Term();
  if (inherited && succeeded_ == absl::InfinitePast()) succeeded_ = clock_.Now();
  const bool taken = again ? worker.term > term_ : worker.term >= term_;
  if (taken) term_ = Term(worker.term.value() + 1);
  welcomed_[worker.worker_id] = worker.incarnation;
}

void Reconfiguration::NoteEpochs(const WorkerInfo& worker) {
  if (options_.replica_per_domain) MakeRoomFor(worker);
  std::map<ReplicaIndex, std::vector<HeldEpoch>> by_replica;
  for (const EpochReport& report : worker.epochs) {
    by_replica[report.replica].push_back({worker, report.replica, report.epoch});
  }
  for (const auto& [replica, held] : by_replica) {
    const auto index = static_cast<size_t>(replica.value());
    if (index < slots_.size()) {
      NoteEpochsOf(worker, slots_[index], held);
    } else {
      for (const HeldEpoch& it : held) GiveBack(it);
    }
  }
}

// What does not serve is of no use, unless it waits for what does: a takeover may be under way.
void Reconfiguration::NoteEpochsOf(const WorkerInfo& worker, Slot& slot,
                                   const std::vector<HeldEpoch>& held) {
  const std::vector<Topology> adoptable = AdoptableOf(worker, held.front().replica, slot);
  for (const HeldEpoch& it : held) {
    if (it.epoch.value() <= kHighestEpoch) slot.last = std::max(slot.last, it.epoch);
  }
  if (!adoptable.empty() || slot.adoption.waiting()) {
    return slot.adoption.Report(held, adoptable, clock_.Now());
  }
  for (const HeldEpoch& it : held) {
    if (!Serves(slot, it)) GiveBack(it);
  }
}

// An epoch may have been adopted between when the worker became a member and now.
bool Reconfiguration::Serves(const Slot& slot, const HeldEpoch& held) {
  if (slot.replica == nullptr) return false;
  const ReplicaStatus& status = slot.replica->status();
  return status.state == ReplicaState::kServing && status.topology.has_value() &&
         status.topology->epoch == held.epoch && HasRank(*status.topology, held.worker);
}

// Not what this coordinator has given up since it formed or adopted it.
std::vector<Topology> Reconfiguration::AdoptableOf(const WorkerInfo& worker, ReplicaIndex replica,
                                                   const Slot& slot) const {
  if (slot.replica == nullptr || !slot.replica->Adoptable()) return {};
  std::vector<Topology> adoptable;
  for (const Topology& topology : worker.serving) {
    const bool fits = topology.replica == replica && topology.epoch > slot.own &&
                      topology.epoch.value() <= kHighestEpoch && HasRank(topology, worker);
    if (fits) adoptable.push_back(topology);
  }
  return adoptable;
}

void Reconfiguration::GiveBack(const HeldEpoch& held) {
  client_.Release({.placement = {.worker_id = held.worker.worker_id,
                                 .incarnation = held.worker.incarnation,
                                 .address = held.worker.address},
                   .replica = held.replica,
                   .epoch = held.epoch,
                   .term = term_},
                  absl::OkStatus(), options_.replica.release_timeout, [](const absl::Status&) {});
}

void Reconfiguration::DecideAdoptions() {
  for (Slot& slot : slots_) {
    const auto verdict = slot.adoption.Decide(
        clock_.Now(), options_.adopt_timeout,
        [this](const std::string& worker_id) { return membership_.Find(worker_id); });
    if (!verdict.has_value()) continue;
    for (const HeldEpoch& held : verdict->released) GiveBack(held);
    if (verdict->adopted.has_value()) {
      Adopt(*verdict->adopted, slot, verdict->released);
    }
  }
}

// As its leader reports.
std::vector<int> Reconfiguration::BucketsOf(const Topology& topology) const {
  const auto leader = membership_.Find(topology.ranks.front().worker_id);
  if (!leader.has_value()) return {};
  for (const EpochReport& report : leader->epochs) {
    if (report.replica == topology.replica && report.epoch == topology.epoch) return report.buckets;
  }
  return {};
}

void Reconfiguration::Adopt(const Topology& topology, Slot& slot,
                            const std::vector<HeldEpoch>& released) {
  slot.own = topology.epoch;
  const std::vector<int> buckets = BucketsOf(topology);
  slot.replica->Adopt(topology, buckets);
  // Sizes that were asked for are those of all replicas but of one that had to shrink.
  const bool larger = topology.config.world_size() > shape_.config.world_size();
  if (!std::exchange(adopted_, true) || larger) {
    shape_.config.tp = topology.config.tp;
    shape_.config.cp = topology.config.cp;
    shape_.buckets = buckets;
  }
  std::set<Epoch> prepared;
  for (const HeldEpoch& held : released) {
    if (held.epoch > topology.epoch) prepared.insert(held.epoch);
  }
  for (const Epoch epoch : prepared) {
    events_.Append({.kind = EventKind::kRolledBack,
                    .replica = topology.replica,
                    .epoch = epoch,
                    .message = absl::StrCat("epoch ", epoch.value(),
                                            ", which an earlier coordinator was preparing, is "
                                            "given back; epoch ",
                                            topology.epoch.value(), " serves on")});
  }
}

}  // namespace muster
