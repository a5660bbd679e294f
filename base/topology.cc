#include "base/topology.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/digest.h"

namespace muster {

const char* GroupKindName(GroupKind kind) {
  switch (kind) {
    case GroupKind::kStage:
      return "STAGE";
    case GroupKind::kTp:
      return "TP";
    case GroupKind::kCp:
      return "CP";
  }
  return "?";
}

std::string GroupSpec::DebugString() const {
  return absl::StrCat(
      GroupKindName(kind), "[",
      absl::StrJoin(ranks, ",",
                    [](std::string* out, GlobalRank rank) { absl::StrAppend(out, rank.value()); }),
      "]");
}

GroupId DigestGroup(Epoch epoch, GroupKind kind, const std::vector<GlobalRank>& ranks) {
  Digest digest;
  digest.Add(epoch.value());
  digest.Add(static_cast<uint64_t>(kind));
  digest.Add(ranks.size());
  for (GlobalRank rank : ranks) digest.Add(static_cast<uint64_t>(rank.value()));
  return GroupId(digest.value());
}

RankCoordinates CoordinatesOf(const ParallelConfig& config, GlobalRank rank) {
  return {.pp_rank = rank.value() / config.stage_size(),
          .cp_rank = rank.value() / config.tp % config.cp,
          .tp_rank = rank.value() % config.tp};
}

GlobalRank RankAt(const ParallelConfig& config, const RankCoordinates& at) {
  return GlobalRank((at.pp_rank * config.cp + at.cp_rank) * config.tp + at.tp_rank);
}

std::vector<GroupSpec> DeriveGroups(const ParallelConfig& config, Epoch epoch) {
  std::vector<GroupSpec> groups;
  auto add = [&](GroupKind kind, std::vector<GlobalRank> ranks) {
    groups.push_back({.id = DigestGroup(epoch, kind, ranks), .kind = kind, .ranks = ranks});
  };
  for (int pp = 0; pp < config.pp; ++pp) {
    std::vector<GlobalRank> ranks;
    for (int i = 0; i < config.stage_size(); ++i) {
      ranks.emplace_back(pp * config.stage_size() + i);
    }
    add(GroupKind::kStage, std::move(ranks));
  }
  for (int pp = 0; pp < config.pp; ++pp) {
    for (int cp = 0; cp < config.cp; ++cp) {
      std::vector<GlobalRank> ranks;
      for (int tp = 0; tp < config.tp; ++tp) ranks.push_back(RankAt(config, {pp, cp, tp}));
      add(GroupKind::kTp, std::move(ranks));
    }
  }
  for (int pp = 0; pp < config.pp; ++pp) {
    for (int tp = 0; tp < config.tp; ++tp) {
      std::vector<GlobalRank> ranks;
      for (int cp = 0; cp < config.cp; ++cp) ranks.push_back(RankAt(config, {pp, cp, tp}));
      add(GroupKind::kCp, std::move(ranks));
    }
  }
  return groups;
}

const char* WorkerStateName(WorkerState state) {
  switch (state) {
    case WorkerState::kEnlisted:
      return "ENLISTED";
    case WorkerState::kAssigned:
      return "ASSIGNED";
    case WorkerState::kLoaded:
      return "LOADED";
    case WorkerState::kWarm:
      return "WARM";
    case WorkerState::kCaptured:
      return "CAPTURED";
    case WorkerState::kAgreed:
      return "AGREED";
    case WorkerState::kServing:
      return "SERVING";
    case WorkerState::kDraining:
      return "DRAINING";
    case WorkerState::kFailed:
      return "FAILED";
  }
  return "?";
}

}  // namespace muster
