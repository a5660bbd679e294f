// Workers that leave by their own will.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "coordinator/reconfiguration.h"
#include "coordinator/roster.h"

namespace muster {

void Reconfiguration::OnLeaving(const WorkerInfo& worker, absl::Duration time_left) {
  Deliver([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    departures_.Begin(ToCandidate(worker), time_left);
  });
}

bool Reconfiguration::Occupied(const std::string& worker_id) {
  return Occupied(worker_id, AllReplicas());
}

void Reconfiguration::FitShape(Replica& replica) {
  const std::vector<WorkerView> members = membership_.Snapshot();
  std::vector<Candidate> left =
      MakeRoster(WorkersFor(&replica, members), WantedPattern(members)).fit;
  for (const RankPlacement& rank : replica.status().topology->ranks) {
    const auto member = FindMember(rank.worker_id);
    if (member.has_value() && !member->drained) left.push_back(*member);
  }
  ReplicaShape shape = replica.shape();
  for (; shape.config.cp >= std::max(1, range_.min); --shape.config.cp) {
    const bool enough = ReplicasThatFit(left, static_cast<size_t>(shape.config.world_size())) > 0;
    if (!enough || !CheckFit(shape.config, members).ok()) continue;
    return replica.set_shape(std::move(shape));
  }
}

absl::Status Reconfiguration::TakeDeparture(const WorkerInfo& worker, const absl::Status& reason) {
  switch (departures_.Forget(worker.worker_id, worker.incarnation)) {
    case Departures::Stage::kStayed:
      EmitLost(worker, reason);
      return reason;
    case Departures::Stage::kLeaving: {
      const absl::Status ended =
          MakeError(reason.code(), "it ended before its rank was handed over", DetailOf(reason));
      EmitLost(worker, ended);
      return ended;
    }
    case Departures::Stage::kLeft:
      events_.Append({.kind = EventKind::kWorkerLeft,
                      .worker_id = worker.worker_id,
                      .message = absl::StrCat("worker ", worker.worker_id, " has left")});
      return reason;
  }
  return reason;
}

}  // namespace muster
