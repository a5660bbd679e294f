#include "coordinator/placement.h"

#include <algorithm>
#include <cassert>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/text.h"
#include "coordinator/roster.h"

namespace muster {
namespace {

// The place of `old_rank` in the new sizes, if they have it.
std::optional<GlobalRank> KeptRank(const ParallelConfig& from, const ParallelConfig& to,
                                   GlobalRank old_rank) {
  const RankCoordinates at = CoordinatesOf(from, old_rank);
  if (at.pp_rank >= to.pp || at.cp_rank >= to.cp || at.tp_rank >= to.tp) return std::nullopt;
  return RankAt(to, at);
}

using Seats = std::vector<const Candidate*>;  // by rank; null is vacant

// The workers of one team.
struct Bench {
  std::map<std::string, const Candidate*> free;  // by worker id
  size_t room = 0;                               // of those, as many as no slot counts on
};
using Benches = std::map<Team, Bench>;

Benches MakeBenches(const Roster& roster) {
  Benches benches;
  for (const Candidate& worker : roster.fit) {
    Bench& bench = benches[TeamOf(worker)];
    bench.free[worker.worker_id] = &worker;
    bench.room = bench.free.size();
  }
  return benches;
}

int SurvivorsIn(const Bench& bench, const ReplicaSlot& slot) {
  if (!slot.previous.has_value()) return 0;
  const auto& ranks = slot.previous->ranks;
  return static_cast<int>(std::count_if(ranks.begin(), ranks.end(), [&](const auto& rank) {
    return bench.free.contains(rank.worker_id);
  }));
}

// Which team gets which slot; by slot.
class Assignment {
 public:
  Assignment(const PlanRequest& request, Benches& benches) : request_(request), benches_(benches) {}

  // CheckWorkers has passed.
  std::vector<Bench*> Assign() {
    std::vector<Bench*> chosen(request_.slots.size(), nullptr);
    for (const bool survivors : {true, false}) {
      for (size_t i = 0; i < chosen.size(); ++i) {
        if (HasSurvivors(request_.slots[i]) == survivors) chosen[i] = Choose(request_.slots[i]);
      }
    }
    return chosen;
  }

 private:
  bool HasSurvivors(const ReplicaSlot& slot) const {
    return std::any_of(benches_.begin(), benches_.end(),
                       [&](const auto& it) { return SurvivorsIn(it.second, slot) > 0; });
  }

  bool CanTake(const Team& team, const Bench& bench) const {
    const bool taken = request_.one_per_domain && slots_in_.contains(team.domain);
    return !taken && bench.room >= static_cast<size_t>(request_.config.world_size());
  }

  bool Better(const ReplicaSlot& slot, const Benches::value_type& a,
              const Benches::value_type& b) const {
    const auto rank = [&](const Benches::value_type& it) {
      const auto slots = slots_in_.find(it.first.domain);
      return std::make_tuple(-SurvivorsIn(it.second, slot),
                             slots == slots_in_.end() ? 0 : slots->second,
                             -static_cast<int64_t>(it.second.room));
    };
    if (rank(a) != rank(b)) return rank(a) < rank(b);
    return NaturalLess(a.first.domain, b.first.domain);
  }

  Bench* Choose(const ReplicaSlot& slot) {
    Benches::value_type* best = nullptr;
    for (Benches::value_type& it : benches_) {
      if (!CanTake(it.first, it.second)) continue;
      if (best == nullptr || Better(slot, it, *best)) best = &it;
    }
    assert(best != nullptr);
    best->second.room -= static_cast<size_t>(request_.config.world_size());
    ++slots_in_[best->first.domain];
    return &best->second;
  }

  const PlanRequest& request_;
  Benches& benches_;
  std::map<std::string, int> slots_in_;  // by domain
};

Seats SeatSurvivors(const ParallelConfig& config, const ReplicaSlot& slot, Bench& bench) {
  Seats seats(static_cast<size_t>(config.world_size()), nullptr);
  if (!slot.previous.has_value()) return seats;
  for (const RankPlacement& old : slot.previous->ranks) {
    const auto found = bench.free.find(old.worker_id);
    const auto rank = KeptRank(slot.previous->config, config, old.rank);
    if (found == bench.free.end() || !rank.has_value()) continue;
    seats[static_cast<size_t>(rank->value())] = found->second;
    bench.free.erase(found);
  }
  return seats;
}

void SeatRecruits(Bench& bench, Seats& seats) {
  for (const Candidate*& seat : seats) {
    if (seat != nullptr) continue;
    const auto next = std::min_element(
        bench.free.begin(), bench.free.end(),
        [](const auto& a, const auto& b) { return NaturalLess(a.first, b.first); });
    seat = next->second;
    bench.free.erase(next);
  }
}

absl::Status CheckWorkers(const PlanRequest& request, const Roster& roster) {
  const ParallelConfig& config = request.config;
  const auto world = static_cast<size_t>(config.world_size());
  const size_t slots = request.slots.size();
  const size_t there = roster.fit.size();
  const size_t fitting = ReplicasThatFit(roster.fit, world, request.one_per_domain);
  if (fitting >= slots) return absl::OkStatus();
  const std::string needs =
      absl::StrCat("cannot plan tp=", config.tp, " cp=", config.cp, " replicas=", slots,
                   ": it needs ", Counted(slots * world, "worker"));
  if (there < slots * world) {
    const bool all = roster.drained.empty() && roster.strangers.empty();
    return TooFewFit(
        absl::StrCat(needs, ", ", there,
                     all ? (there == 1 ? " is enlisted" : " are enlisted") : " can get a rank"),
        slots * world - there, roster);
  }
  return TooFewFit(absl::StrCat(needs, ", ", world, " together for each replica, and there are ",
                                DescribeTeams(roster.fit)),
                   (slots - fitting) * world, roster);
}

Topology MakeTopology(const PlanRequest& request, const ReplicaSlot& slot, const Seats& seats) {
  Topology topology{.replica = slot.replica,
                    .epoch = slot.epoch,
                    .term = request.term,
                    .config = request.config,
                    .groups = DeriveGroups(request.config, slot.epoch)};
  for (size_t rank = 0; rank < seats.size(); ++rank) {
    topology.ranks.push_back({.rank = GlobalRank(static_cast<int>(rank)),
                              .worker_id = seats[rank]->worker_id,
                              .incarnation = seats[rank]->incarnation,
                              .address = seats[rank]->address,
                              .local_address = seats[rank]->local_address});
  }
  return topology;
}

}  // namespace

const RankPlacement* FindWorker(const Topology& topology, absl::string_view worker_id) {
  for (const RankPlacement& rank : topology.ranks) {
    if (rank.worker_id == worker_id) return &rank;
  }
  return nullptr;
}

std::string DescribeModel(const ModelSpec& model) {
  return absl::StrCat(model.name, " in ", model.dtype, " (digest ", model.digest, ")");
}

absl::StatusOr<ModelSpec> CommonModel(const std::vector<Candidate>& inventory) {
  std::map<std::pair<std::string, std::string>, std::vector<const Candidate*>> holders;
  for (const Candidate& worker : inventory) {
    holders[{worker.model.digest, worker.model.dtype}].push_back(&worker);
  }
  if (holders.empty()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "no worker is enlisted.",
                     {.reason = ErrorReason::kNotEnoughWorkers, .retriable = true});
  }
  const auto most = std::max_element(holders.begin(), holders.end(), [](auto& a, auto& b) {
    return a.second.size() < b.second.size();
  });
  const ModelSpec& model = most->second.front()->model;
  if (holders.size() == 1) return model;
  ErrorDetail detail{.reason = ErrorReason::kDisagreement};
  std::vector<std::string> odd;
  for (const Candidate& worker : inventory) {
    const ModelSpec& other = worker.model;
    if (other.digest == model.digest && other.dtype == model.dtype) continue;
    detail.workers.push_back(worker.worker_id);
    odd.push_back(absl::StrCat(worker.worker_id, " holds ", DescribeModel(other)));
  }
  if (odd.size() > 8) {
    odd.resize(8);
    odd.push_back("...");
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("workers hold different models: ", absl::StrJoin(odd, ", "), "; the other ",
                   most->second.size(), " hold ", DescribeModel(model), "."),
      detail);
}

absl::StatusOr<Plan> PlanTopology(const PlanRequest& request) {
  MUSTER_RETURN_IF_ERROR(CheckSizes(request.config));
  const Roster roster = MakeRoster(request.inventory, request.pattern);
  MUSTER_ASSIGN_OR_RETURN(const ModelSpec model, ModelOf(roster));
  MUSTER_RETURN_IF_ERROR(CheckConfig(request.config, model));
  MUSTER_RETURN_IF_ERROR(CheckWorkers(request, roster));

  Benches benches = MakeBenches(roster);
  const std::vector<Bench*> chosen = Assignment(request, benches).Assign();
  std::vector<Seats> seats;
  for (size_t i = 0; i < chosen.size(); ++i) {
    seats.push_back(SeatSurvivors(request.config, request.slots[i], *chosen[i]));
  }
  Plan plan{.footprints = Footprints(request.config, model)};
  for (size_t i = 0; i < chosen.size(); ++i) {
    SeatRecruits(*chosen[i], seats[i]);
    plan.topologies.push_back(MakeTopology(request, request.slots[i], seats[i]));
  }
  return plan;
}

bool NaturalLess(absl::string_view a, absl::string_view b) {
  auto digits = [](absl::string_view text) {
    size_t n = 0;
    while (n < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[n]))) ++n;
    return n;
  };
  const absl::string_view whole_a = a, whole_b = b;
  while (!a.empty() && !b.empty()) {
    absl::string_view run_a = a.substr(0, std::max<size_t>(1, digits(a)));
    absl::string_view run_b = b.substr(0, std::max<size_t>(1, digits(b)));
    a.remove_prefix(run_a.size());
    b.remove_prefix(run_b.size());
    if (digits(run_a) > 0 && digits(run_b) > 0) {
      while (run_a.size() > 1 && run_a.front() == '0') run_a.remove_prefix(1);
      while (run_b.size() > 1 && run_b.front() == '0') run_b.remove_prefix(1);
      if (run_a.size() != run_b.size()) return run_a.size() < run_b.size();
    }
    if (run_a != run_b) return run_a < run_b;
  }
  if (a.empty() != b.empty()) return a.empty();
  return whole_a < whole_b;
}

}  // namespace muster
