#include "coordinator/adoption.h"

#include <algorithm>
#include <utility>

namespace muster {
namespace {

bool ServesOn(const Topology& topology, const RankPlacement& rank,
              const Adoption::FindWorker& find) {
  const std::optional<WorkerView> view = find(rank.worker_id);
  if (!view.has_value() || view->info.incarnation != rank.incarnation) return false;
  return std::any_of(view->epochs.begin(), view->epochs.end(), [&](const EpochReport& report) {
    return report.replica == topology.replica && report.epoch == topology.epoch &&
           report.state == WorkerState::kServing;
  });
}

bool ServesOnAll(const Topology& topology, const Adoption::FindWorker& find) {
  return std::all_of(topology.ranks.begin(), topology.ranks.end(),
                     [&](const RankPlacement& rank) { return ServesOn(topology, rank, find); });
}

}  // namespace

void Adoption::Report(const std::vector<HeldEpoch>& held, const std::vector<Topology>& serving,
                      absl::Time now) {
  if (!waiting()) since_ = now;
  for (const Topology& topology : serving) serving_.try_emplace(topology.epoch, topology);
  held_.insert(held_.end(), held.begin(), held.end());
}

void Adoption::Forget(const std::string& worker_id, Incarnation incarnation) {
  std::erase_if(held_, [&](const HeldEpoch& held) {
    return held.worker.worker_id == worker_id && held.worker.incarnation == incarnation;
  });
  if (!waiting()) serving_.clear();
}

std::vector<HeldEpoch> Adoption::GiveUp() {
  serving_.clear();
  return std::exchange(held_, {});
}

bool Adoption::Holds(const std::string& worker_id) const {
  return std::any_of(held_.begin(), held_.end(),
                     [&](const HeldEpoch& held) { return held.worker.worker_id == worker_id; });
}

std::optional<Adoption::Verdict> Adoption::Decide(absl::Time now, absl::Duration timeout,
                                                  const FindWorker& find) {
  if (!waiting()) return std::nullopt;
  const bool late = now - since_ >= timeout;
  Verdict verdict;
  for (auto it = serving_.rbegin(); it != serving_.rend(); ++it) {
    if (ServesOnAll(it->second, find)) {
      verdict.adopted = it->second;
      break;
    }
    if (!late) return std::nullopt;
  }
  for (HeldEpoch& held : std::exchange(held_, {})) {
    const bool adopted = verdict.adopted.has_value() && held.epoch == verdict.adopted->epoch;
    if (!adopted) verdict.released.push_back(std::move(held));
  }
  serving_.clear();
  return verdict;
}

}  // namespace muster
