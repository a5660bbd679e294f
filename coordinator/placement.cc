#include "coordinator/placement.h"

#include <algorithm>
#include <cassert>
#include <functional>
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

constexpr int kMaxAxis = 1024;

std::vector<int> SizesUpTo(int limit, const std::function<bool(int)>& fits) {
  std::vector<int> sizes;
  for (int size = 1; size <= limit; ++size) {
    if (fits(size)) sizes.push_back(size);
  }
  return sizes;
}

absl::Status CheckSizes(const ParallelConfig& config) {
  const std::pair<const char*, int> sizes[] = {
      {"tp", config.tp}, {"cp", config.cp}, {"pp", config.pp}, {"replicas", config.replicas}};
  for (const auto& [name, size] : sizes) {
    if (size < 1 || size > kMaxAxis) {
      return RefusePlan(absl::StrCat("cannot plan ", name, "=", size, ": it can be 1 to 1,024."));
    }
  }
  if (config.pp != 1) {
    return RefusePlan(absl::StrCat("cannot plan pp=", config.pp,
                                   ": this version runs all layers in one stage. pp can be 1."));
  }
  return absl::OkStatus();
}

bool KvHeadsFit(const ModelSpec& model, int tp) {
  return model.kv_heads % tp == 0 || tp % model.kv_heads == 0;
}

absl::Status CheckTp(const ParallelConfig& config, const ModelSpec& model) {
  const std::vector<int> fitting = SizesUpTo(
      kMaxStageSize, [&](int tp) { return model.heads % tp == 0 && KvHeadsFit(model, tp); });
  if (config.tp > kMaxStageSize) {
    return RefusePlan(absl::StrCat("cannot plan tp=", config.tp, ": a stage can have ",
                                   kMaxStageSize, " ranks. tp can be ", ChoicesText(fitting), "."));
  }
  if (model.heads % config.tp != 0) {
    return RefusePlan(absl::StrCat("cannot plan tp=", config.tp, ": the model has ", model.heads,
                                   " attention heads, which ", config.tp,
                                   " does not divide. tp can be ", ChoicesText(fitting), "."));
  }
  if (!KvHeadsFit(model, config.tp)) {
    return RefusePlan(absl::StrCat("cannot plan tp=", config.tp, ": the model has ", model.kv_heads,
                                   " key/value heads, and ", config.tp,
                                   " neither divides them nor is a multiple of them. tp can be ",
                                   ChoicesText(fitting), "."));
  }
  return absl::OkStatus();
}

// " cp can be 1 or 2."; nothing where there is no choice.
std::string CpChoices(absl::string_view subject, const std::vector<int>& sizes) {
  return sizes.empty() ? "" : absl::StrCat(" ", subject, " can be ", ChoicesText(sizes), ".");
}

absl::Status CheckCp(const ParallelConfig& config, const ModelSpec& model, const CpRange& range) {
  const int width = model.heads / config.tp * model.head_dim;
  const std::vector<int> fitting = SizesUpTo(kMaxStageSize / config.tp, [&](int cp) {
    return width % cp == 0 && cp >= range.min && cp <= range.max;
  });
  if (width % config.cp != 0) {
    return RefusePlan(absl::StrCat("cannot plan cp=", config.cp, " with tp=", config.tp, ": ",
                                   model.heads / config.tp, " heads of ", model.head_dim, " make ",
                                   width, " numbers per token, which ", config.cp,
                                   " does not divide.", CpChoices("cp", fitting)));
  }
  if (config.stage_size() > kMaxStageSize) {
    return RefusePlan(absl::StrCat("cannot plan tp=", config.tp, " cp=", config.cp,
                                   ": a stage would have ", config.stage_size(),
                                   " ranks; it can have ", kMaxStageSize, ".",
                                   CpChoices(absl::StrCat("With tp=", config.tp, " cp"), fitting)));
  }
  return absl::OkStatus();
}

int ShardSize(int count, int shards, int index) {
  return count / shards + (index < count % shards ? 1 : 0);
}

uint64_t ElementBytes(const ModelSpec& model) { return model.dtype == "float32" ? 4 : 2; }

// Elements of one layer: q, k, v, o_proj, FFN and the two norms, of which a rank has these many
// heads and columns.
uint64_t LayerElements(const ModelSpec& model, uint64_t heads, uint64_t kv_heads,
                       uint64_t o_columns, uint64_t ffn) {
  const uint64_t rows = (heads + 2 * kv_heads) * model.head_dim + o_columns + 3 * ffn + 2;
  return rows * model.hidden;
}

// Tables of [vocabulary, hidden]: the embedding, and the output where it is not tied to it.
int VocabularyTables(const ModelSpec& model) {
  const uint64_t table = uint64_t(model.vocabulary) * model.hidden;
  const uint64_t layer = LayerElements(model, model.heads, model.kv_heads,
                                       uint64_t(model.heads) * model.head_dim, model.ffn);
  const uint64_t untied = 2 * table + layer * model.layers + model.hidden;
  return model.weight_bytes >= untied * ElementBytes(model) ? 2 : 1;
}

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

absl::Status RefusePlan(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = ErrorReason::kPlanRefused});
}

std::string ChoicesText(const std::vector<int>& sizes) {
  std::string text = absl::StrJoin(sizes.begin(), sizes.end() - 1, ", ");
  return absl::StrCat(text, text.empty() ? "" : " or ", sizes.back());
}

CpRange DefaultCpRange(int cp) { return {.min = std::max(1, cp / 2), .max = 2 * cp}; }

absl::Status CheckConfig(const ParallelConfig& config, const ModelSpec& model,
                         const CpRange& range) {
  MUSTER_RETURN_IF_ERROR(CheckSizes(config));
  MUSTER_RETURN_IF_ERROR(CheckTp(config, model));
  return CheckCp(config, model, range);
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

std::vector<RankFootprint> Footprints(const ParallelConfig& config, const ModelSpec& model) {
  const int shards = config.stage_size();
  const int heads = model.heads / config.tp;
  const int kv_heads = std::max(1, model.kv_heads / config.tp);
  const int tables = VocabularyTables(model);
  std::vector<RankFootprint> footprints;
  for (int rank = 0; rank < config.world_size(); ++rank) {
    const int shard = rank % shards;
    const uint64_t layer =
        LayerElements(model, static_cast<uint64_t>(heads), static_cast<uint64_t>(kv_heads),
                      static_cast<uint64_t>(model.heads * model.head_dim / shards),
                      static_cast<uint64_t>(ShardSize(model.ffn, shards, shard)));
    const auto words = static_cast<uint64_t>(ShardSize(model.vocabulary, shards, shard));
    const uint64_t elements = layer * model.layers + (words * tables + 1) * model.hidden;
    const uint64_t replicated =
        LayerElements(model, static_cast<uint64_t>(heads), static_cast<uint64_t>(kv_heads), 0, 0) *
            model.layers +
        model.hidden;
    footprints.push_back({.rank = GlobalRank(rank),
                          .weight_bytes = elements * ElementBytes(model),
                          .stage_bytes = (elements - replicated) * ElementBytes(model),
                          .kv_block_bytes = uint64_t(model.layers) * 2 * kv_heads * kBlockTokens *
                                            model.head_dim * ElementBytes(model)});
  }
  return footprints;
}

namespace {

// Of the rank that has the most of them.
uint64_t MostStageBytes(const ParallelConfig& config, const ModelSpec& model) {
  uint64_t most = 0;
  for (const RankFootprint& rank : Footprints(config, model)) {
    most = std::max(most, rank.stage_bytes);
  }
  return most;
}

}  // namespace

uint64_t ResizeReserveBytes(const ParallelConfig& config, const ModelSpec& model,
                            const CpRange& range) {
  uint64_t largest = 0, second = 0;
  for (int cp = range.min; cp <= range.max; ++cp) {
    const ParallelConfig other{.tp = config.tp, .cp = cp};
    if (!CheckConfig(other, model).ok()) continue;
    const uint64_t bytes = MostStageBytes(other, model);
    second = std::max(second, std::min(largest, bytes));
    largest = std::max(largest, bytes);
  }
  if (largest == 0) return 0;
  // KV is sized beside the weights of `config`: what the second most take above those is missing.
  const uint64_t own = MostStageBytes(config, model);
  return largest + (second > own ? second - own : 0);
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
