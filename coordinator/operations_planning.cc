// What an operation would do, and whether it may.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/text.h"
#include "coordinator/operations.h"
#include "coordinator/roster.h"

namespace muster {
namespace {

absl::Duration FormedIn(const ReplicaStatus& status) {
  absl::Duration total;
  for (const PhaseTime& phase : status.phases) total += phase.duration;
  return total;
}

// Who gets the rank that the worker has; nobody where the new sizes lack its place.
std::string SuccessorOf(const std::string& worker_id, const ReplicaChange& change) {
  for (const RankPlacement& rank : change.from.ranks) {
    if (rank.worker_id != worker_id) continue;
    const RankCoordinates place = CoordinatesOf(change.from.config, rank.rank);
    const ParallelConfig& to = change.to.config;
    if (place.cp_rank >= to.cp || place.tp_rank >= to.tp) return "";
    return change.to.ranks[static_cast<size_t>(RankAt(to, place).value())].worker_id;
  }
  return "";
}

}  // namespace

std::optional<Pattern> PatternOf(OperationHost& host) {
  for (const Replica* replica : host.Replicas()) {
    if (replica->status().state != ReplicaState::kServing) continue;
    const auto leader = host.FindMember(replica->status().topology->ranks.front().worker_id);
    if (leader.has_value()) return Pattern{.model = leader->model};
  }
  return std::nullopt;
}

std::string Operations::NoteOf(const Target& target, const std::vector<int>& buckets,
                               const ReplicaChange& change) {
  if (!target.drained.empty()) {
    const std::string successor = SuccessorOf(target.drained, change);
    return absl::StrCat("worker ", target.drained, " drained",
                        successor.empty() ? "" : ", its rank moved to ", successor);
  }
  if (target.buckets.empty() || target.buckets == buckets) return "";
  const std::string from = absl::StrJoin(buckets, " ");
  return absl::StrCat("buckets ", from, from.empty() ? "" : " to ",
                      absl::StrJoin(target.buckets, " "));
}

absl::Status Operations::CheckLost(const OperationRequest& request, const ReplicaChange& change) {
  const auto& drop = request.drop;
  const auto dropped = [&](const std::string& name) {
    return std::find(drop.begin(), drop.end(), name) != drop.end();
  };
  if (change.lost_count == 0 || dropped("*")) return absl::OkStatus();
  std::vector<std::string> kept;
  for (const SequenceName& name : change.lost_sequences) {
    const std::string text = absl::StrCat(name.client_id, "/", name.sequence_id);
    if (!dropped(text)) kept.push_back(QuotedId(text));
  }
  const bool all_named = static_cast<size_t>(change.lost_count) == change.lost_sequences.size();
  if (kept.empty() && all_named) return absl::OkStatus();
  if (kept.size() > 8) kept.resize(8);
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("cannot plan ", DescribeSizes(change.from.config, change.to.config),
                                ": ", Counted(static_cast<uint64_t>(change.lost_count), "sequence"),
                                " can be neither moved nor computed again",
                                kept.empty() ? "" : ": ", absl::StrJoin(kept, ", "),
                                ". Free them, or name them, or * for all, as ones to drop."),
                   {.reason = ErrorReason::kPlanRefused});
}

CacheSummaries Operations::TakeRemoved(int count, CacheSummaries& caches) const {
  const std::vector<Replica*> replicas = host_.Replicas();
  CacheSummaries removed;
  for (size_t i = static_cast<size_t>(count); i < replicas.size(); ++i) {
    removed.insert(caches.extract(replicas[i]->status().replica));
  }
  return removed;
}

absl::Status Operations::CheckRemoved(const OperationRequest& request, int count,
                                      const CacheSummaries& removed) {
  const auto& drop = request.drop;
  if (std::find(drop.begin(), drop.end(), "*") != drop.end()) return absl::OkStatus();
  for (const auto& [replica, cache] : removed) {
    if (cache.sequences == 0) continue;
    return WrongState(absl::StrCat("cannot plan replicas=", count, ": replica ", replica.value(),
                                   " holds ",
                                   Counted(static_cast<uint64_t>(cache.sequences), "sequence"),
                                   ", which would be lost. Free them, or name * as what to drop."));
  }
  return absl::OkStatus();
}

absl::Status Operations::CheckAdded(const OperationRequest& request,
                                    const std::vector<Candidate>& pool) const {
  const std::vector<Replica*> replicas = host_.Replicas();
  const ParallelConfig config = ShapeFor(request).config;
  const int added = std::max(0, WantedReplicas(request) - static_cast<int>(replicas.size()));
  const auto world = static_cast<size_t>(config.world_size());
  const size_t needed = static_cast<size_t>(added) * world;
  const Roster roster = MakeRoster(pool, PatternOf(host_));
  const size_t free = roster.fit.size();
  if (ReplicasThatFit(roster.fit, world) >= static_cast<size_t>(added)) return absl::OkStatus();
  const std::string teams = DescribeTeams(roster.fit);
  return TooFewFit(
      absl::StrCat("cannot plan replicas=", config.replicas, ": it needs ", needed, " more ",
                   needed == 1 ? "worker" : "workers", teams.empty() ? "" : ", ",
                   teams.empty() ? "" : absl::StrCat(world, " together for each replica"), ", ",
                   free, free == 1 ? " is" : " are", " free", teams.empty() ? "" : ": ", teams),
      needed > free ? needed - free : world, roster);
}

ReplicaShape Operations::ShapeFor(const OperationRequest& request) const {
  ReplicaShape shape = host_.Shape();
  shape.config = WithSizes(shape.config, request.sizes);
  if (!request.buckets.empty()) shape.buckets = request.buckets;
  return shape;
}

absl::Status Operations::CheckCount(const OperationRequest& request) const {
  const bool asked = WantedReplicas(request) != static_cast<int>(host_.Replicas().size());
  if (!asked || !options_.replica_per_domain) return absl::OkStatus();
  return RefusePlan(absl::StrCat("cannot plan replicas=", request.sizes.replicas,
                                 ": each domain that has workers for one gets one "
                                 "(--replicas auto)."));
}

int Operations::WantedReplicas(const OperationRequest& request) const {
  return request.sizes.replicas == 0 ? static_cast<int>(host_.Replicas().size())
                                     : request.sizes.replicas;
}

absl::Status Operations::CheckDrain(const std::string& worker_id) {
  if (!host_.FindMember(worker_id).has_value()) {
    return MakeError(absl::StatusCode::kNotFound,
                     absl::StrCat("no worker named ", QuotedId(worker_id), " is enlisted."),
                     {.reason = ErrorReason::kInvalidRequest});
  }
  for (const Replica* replica : host_.Replicas()) {
    if (!replica->Occupies(worker_id)) continue;
    if (!Serves(*replica)) {
      return WrongState(absl::StrCat("worker ", worker_id, " cannot be drained while replica ",
                                     replica->status().replica.value(),
                                     " does not serve. Wait until it does."));
    }
    const Topology& topology = *replica->status().topology;
    if (topology.ranks.front().worker_id != worker_id) continue;
    const Candidate leader = *host_.FindMember(worker_id);
    Pattern like_it{.model = leader.model};
    if (options_.replica_per_domain) like_it.team = TeamOf(leader);
    if (topology.ranks.size() == 1 && MakeRoster(host_.Standbys(), like_it).fit.empty()) {
      return WrongState(absl::StrCat("worker ", worker_id, " is the only worker of replica ",
                                     topology.replica.value(),
                                     " and cannot be drained. Stop the fleet instead."));
    }
    return WrongState(absl::StrCat("worker ", worker_id, " leads replica ",
                                   topology.replica.value(),
                                   " and cannot be drained while it serves. Stop its process: "
                                   "the replica is then formed again without it."));
  }
  return absl::OkStatus();
}

std::vector<Topology> Operations::ServingTopologies(const std::string& drained) const {
  std::vector<Topology> topologies;
  for (const Replica* replica : host_.Replicas()) {
    if (!Serves(*replica)) continue;
    const Topology& topology = *replica->status().topology;
    if (drained.empty() || FindWorker(topology, drained) != nullptr) topologies.push_back(topology);
  }
  return topologies;
}

absl::StatusOr<ReplicaChange> Operations::PlanReplica(Replica& replica, const Target& target,
                                                      const CacheSummary& cache, Epoch epoch,
                                                      std::vector<Candidate>& pool) const {
  const ReplicaStatus& status = replica.status();
  ChangeRequest request{.current = *status.topology,
                        .config = WithSizes(status.topology->config, target.sizes),
                        .epoch = epoch,
                        .term = ports_.term(),
                        .inventory = pool,
                        .cache = cache,
                        .ledgers = status.ledgers,
                        .formed_in = FormedIn(status),
                        .range = options_.range};
  for (const RankPlacement& rank : status.topology->ranks) {
    const auto member = host_.FindMember(rank.worker_id);
    if (!member.has_value()) continue;
    request.inventory.push_back(*member);
    if (member->drained) request.excluded.insert(rank.worker_id);
  }
  if (!target.drained.empty()) request.excluded.insert(target.drained);
  auto change = PlanChange(request);
  // A rank that nobody can take over is given up.
  while (!change.ok() && !target.drained.empty() && request.config.cp > 1 &&
         DetailOf(change.status()).reason != ErrorReason::kWrongState) {
    --request.config.cp;
    auto smaller = PlanChange(request);
    if (smaller.ok()) change = std::move(smaller);
  }
  if (!change.ok()) return change;
  change->note = NoteOf(target, replica.shape().buckets, *change);
  std::erase_if(pool,
                [&](const Candidate& w) { return FindWorker(change->to, w.worker_id) != nullptr; });
  for (const Candidate& worker : request.inventory) {
    const bool freed = FindWorker(change->from, worker.worker_id) != nullptr &&
                       FindWorker(change->to, worker.worker_id) == nullptr &&
                       !request.excluded.contains(worker.worker_id);
    if (freed) pool.push_back(worker);
  }
  return change;
}

absl::StatusOr<std::vector<ReplicaChange>> Operations::PlanAll(const Target& target,
                                                               const CacheSummaries& caches,
                                                               std::vector<Candidate>& pool) const {
  std::vector<ReplicaChange> changes;
  for (Replica* replica : host_.Replicas()) {
    const auto cache = caches.find(replica->status().replica);
    if (cache == caches.end() || !Serves(*replica)) continue;
    const ParallelConfig& current = replica->status().topology->config;
    ParallelConfig wanted = WithSizes(current, target.sizes);
    wanted.replicas = current.replicas;
    const bool same_graphs = target.buckets.empty() || target.buckets == replica->shape().buckets;
    if (target.drained.empty() && same_graphs && wanted == current) continue;
    MUSTER_ASSIGN_OR_RETURN(ReplicaChange change,
                            PlanReplica(*replica, target, cache->second,
                                        host_.PeekEpoch(replica->status().replica), pool));
    changes.push_back(std::move(change));
  }
  return changes;
}

absl::StatusOr<std::vector<ReplicaChange>> Operations::PlanOperation(
    const OperationRequest& request, const CacheSummaries& caches) const {
  const int wanted = WantedReplicas(request);
  MUSTER_RETURN_IF_ERROR(CheckCount(request));
  CacheSummaries kept = caches;
  MUSTER_RETURN_IF_ERROR(CheckRemoved(request, wanted, TakeRemoved(wanted, kept)));
  std::vector<Candidate> pool = host_.Standbys();
  MUSTER_ASSIGN_OR_RETURN(std::vector<ReplicaChange> changes,
                          PlanAll({request.sizes, request.buckets, request.worker_id}, kept, pool));
  for (const ReplicaChange& change : changes) MUSTER_RETURN_IF_ERROR(CheckLost(request, change));
  MUSTER_RETURN_IF_ERROR(CheckAdded(request, pool));
  return changes;
}

void Operations::Plan(const OperationRequest& request, OnPlanned done) {
  const std::vector<Topology> serving = ServingTopologies("");
  if (serving.empty()) {
    using Changes = absl::StatusOr<std::vector<ReplicaChange>>;
    return host_.RunUnlocked([done = std::move(done), count = CheckCount(request)] {
      done(count.ok() ? Changes(std::vector<ReplicaChange>()) : Changes(count));
    });
  }
  SurveyCaches(serving, ports_,
               [this, request, done = std::move(done)](absl::StatusOr<CacheSummaries> caches) {
                 auto plan = caches.ok()
                                 ? PlanOperation(request, *caches)
                                 : absl::StatusOr<std::vector<ReplicaChange>>(caches.status());
                 host_.RunUnlocked([done, plan = std::move(plan)] { done(plan); });
               });
}

}  // namespace muster
