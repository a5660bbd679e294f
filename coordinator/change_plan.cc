#include "coordinator/change_plan.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/text.h"
#include "coordinator/roster.h"

namespace muster {
namespace {

// The tag of a rank's ledger under which it keeps room for an epoch that follows.
constexpr char kResizeReserve[] = "resize reserve";

// HOLD, its acknowledgements, the copy, its report, SWITCH.
constexpr int kPauseRoundTrips = 4;
// From the leader's one thread to its other, to the followers' and back, until the first step may
// run; and what it takes to wake a thread, by itself and where steps keep the processors busy. As
// measured: docs/benchmarks/scaling.md.
constexpr int kPauseWakeUps = 7;
constexpr absl::Duration kIdleWakeUp = absl::Microseconds(60);
constexpr absl::Duration kBusyWakeUp = absl::Microseconds(150);
// A block is read for its seal, then copied.
constexpr int kPassesPerBlock = 2;
// Where the leader has not measured one yet.
constexpr absl::Duration kAssumedRoundTrip = absl::Milliseconds(1);
constexpr double kAssumedCopyRate = 1e9;     // bytes per second
constexpr double kAssumedPrefillRate = 1e2;  // tokens per second
constexpr absl::Duration kShortestPrepare = absl::Milliseconds(100);

size_t IndexOf(GlobalRank rank) { return static_cast<size_t>(rank.value()); }

// Held blocks by cp rank.
std::vector<uint64_t> BlocksByCpRank(const CacheSummary& cache, int cp) {
  std::vector<uint64_t> blocks(static_cast<size_t>(cp), 0);
  for (size_t index = 0; index < cache.blocks_by_index.size(); ++index) {
    blocks[index % static_cast<size_t>(cp)] += cache.blocks_by_index[index];
  }
  return blocks;
}

// The parts of this many blocks on their way from one cp rank to another; true when any part is
// copied.
bool AddFlows(int from_cp, int to_cp, uint64_t blocks, uint64_t block_bytes,
              ReplicaChange* change) {
  bool moved = false;
  for (int tp = 0; tp < change->from.config.tp; ++tp) {
    const GlobalRank from = RankAt(change->from.config, {0, from_cp, tp});
    const GlobalRank to = RankAt(change->to.config, {0, to_cp, tp});
    const bool same_worker =
        change->from.ranks[IndexOf(from)].worker_id == change->to.ranks[IndexOf(to)].worker_id;
    if (from_cp == to_cp && same_worker) continue;
    moved = true;
    change->flows.push_back({from, to, blocks, blocks * block_bytes});
    change->kv_bytes_moved += blocks * block_bytes;
  }
  return moved;
}

void MoveBlocks(const CacheSummary& cache, ReplicaChange* change) {
  std::map<std::pair<int, int>, uint64_t> pairs;  // of cp ranks
  for (size_t index = 0; index < cache.blocks_by_index.size(); ++index) {
    const int b = static_cast<int>(index);
    if (cache.blocks_by_index[index] == 0) continue;
    pairs[{b % change->from.config.cp, b % change->to.config.cp}] += cache.blocks_by_index[index];
  }
  for (const auto& [pair, blocks] : pairs) {
    const bool moved = AddFlows(pair.first, pair.second, blocks, cache.block_bytes, change);
    (moved ? change->kv_blocks_moved : change->kv_blocks_kept) += blocks;
  }
  std::sort(change->flows.begin(), change->flows.end(), [](const auto& a, const auto& b) {
    return std::pair(a.from, a.to) < std::pair(b.from, b.to);
  });
}

// Of each rank of `to`, whose arena is new where tp is.
uint64_t BlocksPerRank(const ChangeRequest& request, const ParallelConfig& to,
                       const ModelSpec& model) {
  const ParallelConfig& from = request.current.config;
  if (from.tp == to.tp) return request.cache.blocks_per_rank;
  const uint64_t before = Footprints(from, model).front().kv_block_bytes;
  const uint64_t after = Footprints(to, model).front().kv_block_bytes;
  return request.cache.blocks_per_rank * before / after;
}

// Blocks that each worker holds on the way, its own of before and what comes, and has room for:
// `blocks_after` in the new topology.
void CountBlocks(const CacheSummary& cache, uint64_t blocks_after, ReplicaChange* change) {
  const bool rebuilds = change->from.config.tp != change->to.config.tp;
  const std::vector<uint64_t> before = BlocksByCpRank(cache, change->from.config.cp);
  const std::vector<uint64_t> after = BlocksByCpRank(cache, change->to.config.cp);
  for (RankChange& rank : change->ranks) {
    const bool leaves = rank.role == RankRole::kLeaver;
    rank.kv_blocks_total = leaves ? cache.blocks_per_rank : blocks_after;
    if (rebuilds) {
      // The arenas are two, and the new one is filled after the old one is given up.
      const auto& config = leaves ? change->from.config : change->to.config;
      rank.kv_blocks_peak =
          (leaves ? before : after)[static_cast<size_t>(CoordinatesOf(config, rank.rank).cp_rank)];
      continue;
    }
    // A place has what it had, whoever held it, and what comes from others.
    const auto& config = leaves ? change->from.config : change->to.config;
    const int place = CoordinatesOf(config, rank.rank).cp_rank;
    if (place < change->from.config.cp) rank.kv_blocks_peak += before[static_cast<size_t>(place)];
    if (leaves) continue;
    for (const BlockFlow& flow : change->flows) {
      const bool other = CoordinatesOf(change->from.config, flow.from).cp_rank != place;
      if (flow.to == rank.rank && other) rank.kv_blocks_peak += flow.blocks;
    }
  }
}

// What a rank holds now. Its resize reserve is room for what is to come, not held.
uint64_t AllBytes(const RankLedger& ledger) {
  uint64_t bytes = 0;
  for (const LedgerEntry& entry : ledger.entries) {
    if (entry.tag != kResizeReserve) bytes += entry.bytes;
  }
  return bytes;
}

// The same beside weights and KV: workspaces, communicators, graphs.
uint64_t OtherBytes(const RankLedger& ledger) {
  uint64_t bytes = AllBytes(ledger);
  for (const LedgerEntry& entry : ledger.entries) {
    if (entry.tag == "weights" || entry.tag == "kv") bytes -= entry.bytes;
  }
  return bytes;
}

RankRole RoleOf(const Topology& from, const Topology& to, const RankPlacement& rank) {
  const RankPlacement* old = FindWorker(from, rank.worker_id);
  const bool same_place = old != nullptr && CoordinatesOf(from.config, old->rank) ==
                                                CoordinatesOf(to.config, rank.rank);
  return same_place ? RankRole::kSurvivor : RankRole::kRecruit;
}

// Of a rank of the new topology, which gets `arena` bytes of blocks if it has none of before.
RankChange ChangeOf(const ChangeRequest& request, const ReplicaChange& change,
                    const RankPlacement& rank, const RankFootprint& footprint, uint64_t arena) {
  RankChange it{.worker_id = rank.worker_id,
                .role = RoleOf(change.from, change.to, rank),
                .rank = rank.rank,
                .weight_bytes_loaded = footprint.weight_bytes};
  const bool same_tp = change.from.config.tp == change.to.config.tp;
  if (it.role == RankRole::kSurvivor && same_tp) {
    const bool same_cp = change.from.config.cp == change.to.config.cp;
    it.weight_bytes_loaded = same_cp ? 0 : footprint.stage_bytes;
    it.weight_bytes_shared = footprint.weight_bytes - it.weight_bytes_loaded;
  }
  it.peak_bytes = it.weight_bytes_loaded;
  if (!request.ledgers.empty()) it.peak_bytes += OtherBytes(request.ledgers.front());
  const RankPlacement* old = FindWorker(change.from, rank.worker_id);
  const bool known = old != nullptr && IndexOf(old->rank) < request.ledgers.size();
  if (known) it.peak_bytes += AllBytes(request.ledgers[IndexOf(old->rank)]);
  if (it.role == RankRole::kRecruit || !same_tp) it.peak_bytes += arena;
  return it;
}

void AddLeavers(const ChangeRequest& request, ReplicaChange* change) {
  for (const RankPlacement& rank : change->from.ranks) {
    if (FindWorker(change->to, rank.worker_id) != nullptr) continue;
    RankChange leaver{.worker_id = rank.worker_id, .role = RankRole::kLeaver, .rank = rank.rank};
    if (IndexOf(rank.rank) < request.ledgers.size()) {
      leaver.peak_bytes = AllBytes(request.ledgers[IndexOf(rank.rank)]);
    }
    change->ranks.push_back(std::move(leaver));
  }
}

void AddRanks(const ChangeRequest& request, const ModelSpec& model, ReplicaChange* change) {
  const std::vector<RankFootprint> footprints = Footprints(request.config, model);
  const uint64_t blocks = BlocksPerRank(request, request.config, model);
  for (const RankPlacement& rank : change->to.ranks) {
    const RankFootprint& footprint = footprints[IndexOf(rank.rank)];
    change->ranks.push_back(
        ChangeOf(request, *change, rank, footprint, blocks * footprint.kv_block_bytes));
  }
  std::stable_sort(change->ranks.begin(), change->ranks.end(),
                   [](const auto& a, const auto& b) { return a.role < b.role; });
  AddLeavers(request, change);
  for (RankChange& rank : change->ranks) {
    for (const Candidate& worker : request.inventory) {
      if (worker.worker_id == rank.worker_id) rank.total_bytes = worker.device.total_bytes;
    }
  }
}

absl::Status CheckRange(const ChangeRequest& request, const ModelSpec& model) {
  const int cp = request.config.cp;
  const CpRange& range = request.range;
  if (cp == request.current.config.cp || (cp >= range.min && cp <= range.max)) {
    return absl::OkStatus();
  }
  std::vector<int> fitting;
  for (int size = range.min; size <= range.max; ++size) {
    if (CheckConfig({.tp = request.config.tp, .cp = size}, model).ok()) fitting.push_back(size);
  }
  return RefusePlan(
      absl::StrCat("cannot plan cp=", cp, ": room is kept for cp ", range.min, " to ", range.max,
                   " (--resize-range).", fitting.empty() ? "" : " cp can be ",
                   fitting.empty() ? "" : ChoicesText(fitting), fitting.empty() ? "" : "."));
}

absl::Status CheckMemory(const ChangeRequest& request, const ReplicaChange& change) {
  for (const RankChange& rank : change.ranks) {
    if (rank.role == RankRole::kLeaver || rank.total_bytes == 0) continue;
    if (rank.peak_bytes <= rank.total_bytes) continue;
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat("cannot plan tp=", request.config.tp, " cp=", request.config.cp, ": rank ",
                     rank.rank.value(), " (worker ", rank.worker_id, ") would hold ",
                     WithCommas(rank.peak_bytes), " bytes while both epochs are held, and has ",
                     WithCommas(rank.total_bytes), "."),
        {.reason = ErrorReason::kOutOfMemory, .ranks = {rank.rank}, .workers = {rank.worker_id}});
  }
  return absl::OkStatus();
}

// The first rank that would hold too much on the way.
const RankChange* FindOverfull(const ReplicaChange& change) {
  for (const RankChange& rank : change.ranks) {
    const bool takes = rank.role != RankRole::kLeaver;
    if (takes && rank.kv_blocks_peak > rank.kv_blocks_total) return &rank;
  }
  return nullptr;
}

// The leader's model and team; none where it is not in the inventory.
std::optional<Pattern> PatternOf(const ChangeRequest& request) {
  for (const Candidate& worker : request.inventory) {
    if (worker.worker_id != request.current.ranks.front().worker_id) continue;
    return Pattern{.model = worker.model, .team = TeamOf(worker)};
  }
  return std::nullopt;
}

bool HasRank(const ChangeRequest& request, const Candidate& worker) {
  return FindWorker(request.current, worker.worker_id) != nullptr;
}

// Who can get a rank of the new topology: those that have one are a team, as they serve together.
Roster RosterOf(const ChangeRequest& request) {
  const std::optional<Pattern> pattern = PatternOf(request);
  std::vector<Candidate> ranks, others;
  for (Candidate worker : request.inventory) {
    worker.drained = worker.drained || request.excluded.contains(worker.worker_id);
    const bool serves_on = HasRank(request, worker) && !worker.drained;
    if (serves_on && pattern.has_value()) {
      worker.domain = pattern->team->domain;
      worker.build = pattern->team->build;
    }
    (serves_on ? ranks : others).push_back(std::move(worker));
  }
  Roster roster = MakeRoster(others, pattern);
  roster.fit.insert(roster.fit.begin(), ranks.begin(), ranks.end());
  return roster;
}

absl::Status CheckWorkers(const ChangeRequest& request, const Roster& roster) {
  const ParallelConfig& config = request.config;
  const auto needed = static_cast<size_t>(config.world_size());
  if (roster.fit.size() >= needed) return absl::OkStatus();
  const auto has = static_cast<size_t>(
      std::count_if(roster.fit.begin(), roster.fit.end(),
                    [&](const Candidate& worker) { return HasRank(request, worker); }));
  const size_t others = roster.fit.size() - has;
  const std::string free = others == 0   ? "no other is"
                           : others == 1 ? "1 other is"
                                         : absl::StrCat(others, " others are");
  return TooFewFit(
      absl::StrCat("cannot plan tp=", config.tp, " cp=", config.cp, " of replica ",
                   request.current.replica.value(), ": it needs ", Counted(needed, "worker"),
                   "; it has ", has, ", and ", free, " free"),
      needed - roster.fit.size(), roster);
}

// All but the checks of room.
absl::StatusOr<ReplicaChange> Derive(const ChangeRequest& request, const Roster& roster,
                                     const ModelSpec& model) {
  PlanRequest plan_request{.config = request.config,
                           .term = request.term,
                           .slots = {{.replica = request.current.replica,
                                      .epoch = request.epoch,
                                      .previous = request.current}},
                           .inventory = roster.fit};
  plan_request.config.replicas = 1;
  MUSTER_ASSIGN_OR_RETURN(Plan plan, PlanTopology(plan_request));
  ReplicaChange change{.from = request.current, .to = std::move(plan.topologies.front())};
  change.to.config.replicas = request.current.config.replicas;
  const CacheSummary& cache = request.cache;
  const auto tokens = [&](const ParallelConfig& config, uint64_t blocks_per_rank) {
    return static_cast<uint64_t>(config.cp) * blocks_per_rank *
           static_cast<uint64_t>(cache.block_tokens);
  };
  const uint64_t blocks_after = BlocksPerRank(request, change.to.config, model);
  change.capacity_tokens_before = tokens(change.from.config, cache.blocks_per_rank);
  change.capacity_tokens_after = tokens(change.to.config, blocks_after);
  if (change.from.config.tp == change.to.config.tp) {
    MoveBlocks(cache, &change);
  } else {
    change.tokens_to_rebuild = cache.tokens;
    change.lost_sequences = cache.not_rebuildable;
    change.lost_count = cache.not_rebuildable_count;
  }
  AddRanks(request, model, &change);
  CountBlocks(cache, blocks_after, &change);
  return change;
}

absl::Status CheckBlocks(const ChangeRequest& request, const Roster& roster, const ModelSpec& model,
                         const ReplicaChange& change) {
  const RankChange* overfull = FindOverfull(change);
  if (overfull == nullptr) return absl::OkStatus();
  std::vector<int> roomy;
  for (int cp = request.range.min; cp <= request.range.max; ++cp) {
    ChangeRequest other = request;
    other.config.cp = cp;
    if (cp == request.current.config.cp && other.config.tp == request.current.config.tp) continue;
    const auto derived = Derive(other, roster, model);
    if (derived.ok() && FindOverfull(*derived) == nullptr) roomy.push_back(cp);
  }
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat("cannot plan cp=", request.config.cp, ": rank ", overfull->rank.value(),
                   " would hold ", WithCommas(overfull->kv_blocks_peak),
                   " KV blocks on the way and has room for ", WithCommas(overfull->kv_blocks_total),
                   ". Free sequences",
                   roomy.empty() ? "." : absl::StrCat(", or choose cp ", ChoicesText(roomy), ".")),
      {.reason = ErrorReason::kKvCapacity,
       .ranks = {overfull->rank},
       .workers = {overfull->worker_id},
       .retriable = true});
}

absl::Status CheckLeader(const ChangeRequest& request) {
  const std::string& leader = request.current.ranks.front().worker_id;
  if (!request.excluded.contains(leader)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("worker ", leader, " leads replica ",
                                request.current.replica.value(), " and stays."),
                   {.reason = ErrorReason::kWrongState, .workers = {leader}});
}

// It took as long to form what serves; more where much is to be read.
absl::Duration PredictPrepare(const ChangeRequest& request, const ReplicaChange& change) {
  uint64_t loaded = 0;
  for (const RankChange& rank : change.ranks) loaded = std::max(loaded, rank.weight_bytes_loaded);
  const double rate = request.cache.copy_bytes_per_second > 0 ? request.cache.copy_bytes_per_second
                                                              : kAssumedCopyRate;
  return std::max(request.formed_in,
                  kShortestPrepare + absl::Seconds(static_cast<double>(loaded) / rate));
}

}  // namespace

absl::Duration PredictPause(const CacheSummary& cache, const ReplicaChange& change) {
  const absl::Duration round_trip =
      cache.round_trip > absl::ZeroDuration() ? cache.round_trip : kAssumedRoundTrip;
  const absl::Duration wake_up = cache.active_sequences > 0 ? kBusyWakeUp : kIdleWakeUp;
  absl::Duration pause = kPauseRoundTrips * round_trip + kPauseWakeUps * wake_up;
  if (change.kv_blocks_moved > 0) {
    const double rate =
        cache.copy_bytes_per_second > 0 ? cache.copy_bytes_per_second : kAssumedCopyRate;
    const double bytes = static_cast<double>(cache.active_sequences) *
                         static_cast<double>(cache.block_bytes) * change.from.config.tp;
    pause += absl::Seconds(kPassesPerBlock * bytes / rate);
  }
  if (change.tokens_to_rebuild > 0) {
    const double rate =
        cache.prefill_tokens_per_second > 0 ? cache.prefill_tokens_per_second : kAssumedPrefillRate;
    pause += absl::Seconds(static_cast<double>(change.tokens_to_rebuild) / rate);
  }
  return pause;
}

absl::StatusOr<ReplicaChange> PlanChange(const ChangeRequest& request) {
  const Roster roster = RosterOf(request);
  MUSTER_ASSIGN_OR_RETURN(const ModelSpec model, ModelOf(roster));
  MUSTER_RETURN_IF_ERROR(CheckConfig(request.config, model, request.range));
  MUSTER_RETURN_IF_ERROR(CheckRange(request, model));
  MUSTER_RETURN_IF_ERROR(CheckLeader(request));
  MUSTER_RETURN_IF_ERROR(CheckWorkers(request, roster));
  MUSTER_ASSIGN_OR_RETURN(ReplicaChange change, Derive(request, roster, model));
  MUSTER_RETURN_IF_ERROR(CheckBlocks(request, roster, model, change));
  MUSTER_RETURN_IF_ERROR(CheckMemory(request, change));
  change.predicted_prepare = PredictPrepare(request, change);
  change.predicted_pause = PredictPause(request.cache, change);
  return change;
}

}  // namespace muster
