// How many replicas there are: as many as were asked for, or as there are domains for them.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/text.h"
#include "coordinator/reconfiguration.h"
#include "coordinator/roster.h"

namespace muster {
namespace {

// What a fleet can have.
constexpr size_t kMostReplicas = 1024;

// It stays so, with its workers, until one of them leaves.
bool HasFailedFor(const Replica& replica, const std::string& worker_id) {
  const ReplicaStatus& status = replica.status();
  return status.state == ReplicaState::kFailed && status.topology.has_value() &&
         FindWorker(*status.topology, worker_id) != nullptr;
}

bool IsMember(const RankPlacement& rank, const std::vector<WorkerView>& members) {
  return std::any_of(members.begin(), members.end(), [&](const WorkerView& member) {
    return member.info.worker_id == rank.worker_id && member.info.incarnation == rank.incarnation;
  });
}

}  // namespace

std::vector<Replica*> Reconfiguration::Replicas() {
  std::vector<Replica*> replicas;
  for (const Slot& slot : slots_) {
    if (slot.replica != nullptr) replicas.push_back(slot.replica.get());
  }
  return replicas;
}

std::vector<const Replica*> Reconfiguration::AllReplicas() const {
  std::vector<const Replica*> replicas;
  for (const Slot& slot : slots_) {
    if (slot.replica != nullptr) replicas.push_back(slot.replica.get());
  }
  for (const auto& replica : closing_) replicas.push_back(replica.get());
  return replicas;
}

void Reconfiguration::AddReplica(size_t index) {
  if (slots_.size() <= index) slots_.resize(index + 1);
  slots_[index].replica =
      std::make_unique<Replica>(ReplicaIndex(static_cast<int>(index)), options_.replica, ports_);
  slots_[index].replica->set_shape(shape_);
}

void Reconfiguration::TakeOut(Slot& slot, const absl::Status& reason) {
  for (const HeldEpoch& held : slot.adoption.GiveUp()) GiveBack(held);
  slot.replica->Close(reason);
  closing_.push_back(std::move(slot.replica));
}

void Reconfiguration::NoteCount() {
  const std::vector<Replica*> replicas = Replicas();
  shape_.config.replicas = static_cast<int>(replicas.size());
  for (Replica* replica : replicas) {
    ReplicaShape shape = replica->shape();
    shape.config.replicas = shape_.config.replicas;
    replica->set_shape(std::move(shape));
  }
}

void Reconfiguration::SetReplicas(int count) {
  const auto wanted = static_cast<size_t>(count);
  for (size_t i = 0; i < std::max(wanted, slots_.size()); ++i) {
    const bool there = i < slots_.size() && slots_[i].replica != nullptr;
    if (i < wanted && !there) AddReplica(i);
    if (i >= wanted && there) {
      TakeOut(slots_[i], absl::UnavailableError("the replica was taken out of the fleet"));
    }
  }
  NoteCount();
}

bool Reconfiguration::IsDeserted(const Slot& slot, const std::vector<WorkerView>& members) {
  if (slot.replica == nullptr || slot.adoption.waiting() || slot.replica->Holding()) return false;
  const ReplicaStatus& status = slot.replica->status();
  if (status.state != ReplicaState::kWaiting) return false;
  if (!status.topology.has_value()) return true;
  const auto& ranks = status.topology->ranks;
  return std::none_of(ranks.begin(), ranks.end(),
                      [&](const RankPlacement& rank) { return IsMember(rank, members); });
}

void Reconfiguration::FollowDomains(const std::vector<WorkerView>& members) {
  if (operations_.busy()) return;  // it counts on the replicas that there are
  const std::vector<Candidate> able =
      MakeRoster(WorkersFor(nullptr, members), WantedPattern(members)).fit;
  const auto world = static_cast<size_t>(shape_.config.world_size());
  const size_t domains = ReplicasThatFit(able, world, true);
  size_t idle = 0;
  for (const Replica* replica : Replicas()) {
    const bool runs = replica->status().state == ReplicaState::kForming ||
                      replica->status().state == ReplicaState::kServing;
    const bool stuck = std::any_of(members.begin(), members.end(), [&](const WorkerView& member) {
      return HasFailedFor(*replica, member.info.worker_id);
    });
    if (!runs && !stuck) ++idle;
  }
  const auto tell = [this](EventKind kind, size_t index, absl::string_view what) {
    NoteCount();
    events_.Append({.kind = kind,
                    .replica = ReplicaIndex(static_cast<int>(index)),
                    .message = absl::StrCat("replica ", index, what, ": ",
                                            Counted(shape_.config.replicas, "replica"))});
  };
  for (size_t i = slots_.size(); i-- > 0 && idle > domains && Replicas().size() > 1;) {
    if (!IsDeserted(slots_[i], members)) continue;
    TakeOut(slots_[i], absl::UnavailableError("none of its workers is left"));
    tell(EventKind::kReplicaRemoved, i, ", of whose workers none is left, is taken out");
    --idle;
  }
  for (size_t i = 0; i < kMostReplicas && idle < domains; ++i) {
    if (i < slots_.size() && slots_[i].replica != nullptr) continue;
    AddReplica(i);
    tell(EventKind::kReplicaAdded, i, " is added for a domain with enough workers");
    ++idle;
  }
}

void Reconfiguration::MakeRoomFor(const WorkerInfo& worker) {
  for (const Topology& topology : worker.serving) {
    const auto index = static_cast<size_t>(topology.replica.value());
    if (index >= kMostReplicas) continue;
    const bool known = index < slots_.size();
    if (known && (slots_[index].replica != nullptr || topology.epoch <= slots_[index].own))
      continue;
    AddReplica(index);
  }
  NoteCount();
}

std::vector<Candidate> Reconfiguration::WorkersFor(const Replica* replica,
                                                   const std::vector<WorkerView>& members) {
  std::vector<Candidate> free = FreeWorkers(members);
  if (!options_.replica_per_domain) return free;
  std::vector<const Replica*> others = AllReplicas();
  std::erase(others, replica);
  std::set<std::string> taken;
  for (const WorkerView& member : members) {
    const std::string& id = member.info.worker_id;
    const bool failed = std::any_of(others.begin(), others.end(),
                                    [&](const Replica* it) { return HasFailedFor(*it, id); });
    if (failed || Occupied(id, others)) taken.insert(member.info.domain);
  }
  std::erase_if(free, [&](const Candidate& worker) { return taken.contains(worker.domain); });
  return free;
}

}  // namespace muster
