#include "base/wire_topology.h"

#include <algorithm>
#include <limits>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/status_macros.h"
#include "base/text.h"
#include "base/unix_socket.h"
#include "base/wire_check.h"

namespace muster {
namespace {

constexpr uint64_t kMaxRanks = 1 << 20;
constexpr int kMaxEndTokens = 256;

v1::Group ToWireGroup(const GroupSpec& group) {
  v1::Group wire;
  wire.set_id(DigestString(group.id.value()));
  wire.set_kind(static_cast<v1::GroupKind>(group.kind));
  for (GlobalRank rank : group.ranks) wire.add_ranks(static_cast<uint32_t>(rank.value()));
  return wire;
}

absl::StatusOr<RankPlacement> PlacementFromWire(const v1::RankPlacement& wire,
                                                const ParallelConfig& config, int index) {
  const RankCoordinates at = CoordinatesOf(config, GlobalRank(index));
  const bool in_place = wire.rank() == static_cast<uint32_t>(index) &&
                        wire.pp_rank() == static_cast<uint32_t>(at.pp_rank) &&
                        wire.cp_rank() == static_cast<uint32_t>(at.cp_rank) &&
                        wire.tp_rank() == static_cast<uint32_t>(at.tp_rank);
  if (!in_place) {
    return absl::InvalidArgumentError(
        absl::StrCat("topology.ranks[", index, "] is rank ", wire.rank(), " at pp ", wire.pp_rank(),
                     " cp ", wire.cp_rank(), " tp ", wire.tp_rank(), "; its place is rank ", index,
                     " at pp ", at.pp_rank, " cp ", at.cp_rank, " tp ", at.tp_rank));
  }
  MUSTER_RETURN_IF_ERROR(CheckWorkerId(wire.worker_id()));
  MUSTER_RETURN_IF_ERROR(CheckWireLength("address", wire.address()));
  MUSTER_RETURN_IF_ERROR(CheckLocalAddress(wire.local_address()));
  return RankPlacement{.rank = GlobalRank(index),
                       .worker_id = wire.worker_id(),
                       .incarnation = Incarnation(wire.incarnation()),
                       .address = wire.address(),
                       .local_address = wire.local_address()};
}

// Every rank in its place, each with a worker of its own.
absl::StatusOr<std::vector<RankPlacement>> RanksFromWire(const v1::Topology& wire,
                                                         const ParallelConfig& config) {
  if (wire.ranks_size() != config.world_size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "topology has ", wire.ranks_size(), " ranks; its sizes imply ", config.world_size()));
  }
  std::vector<RankPlacement> ranks;
  std::set<absl::string_view> workers;
  for (int i = 0; i < wire.ranks_size(); ++i) {
    MUSTER_ASSIGN_OR_RETURN(RankPlacement placement, PlacementFromWire(wire.ranks(i), config, i));
    if (!workers.insert(wire.ranks(i).worker_id()).second) {
      return absl::InvalidArgumentError(absl::StrCat("topology.ranks[", i, "] is held by worker ",
                                                     placement.worker_id, ", as is another rank"));
    }
    ranks.push_back(std::move(placement));
  }
  return ranks;
}

// The derived groups, after a check that the wire's are the same.
absl::StatusOr<std::vector<GroupSpec>> GroupsFromWire(const v1::Topology& wire,
                                                      const ParallelConfig& config, Epoch epoch) {
  std::vector<GroupSpec> groups = DeriveGroups(config, epoch);
  if (static_cast<size_t>(wire.groups_size()) != groups.size()) {
    return absl::InvalidArgumentError(absl::StrCat("topology has ", wire.groups_size(),
                                                   " groups; its sizes imply ", groups.size()));
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    const v1::Group expected = ToWireGroup(groups[i]);
    const v1::Group& got = wire.groups(static_cast<int>(i));
    const bool equal = got.id() == expected.id() && got.kind() == expected.kind() &&
                       std::equal(got.ranks().begin(), got.ranks().end(), expected.ranks().begin(),
                                  expected.ranks().end());
    if (!equal) {
      return absl::InvalidArgumentError(
          absl::StrCat("topology.groups[", i, "] is not ", groups[i].DebugString(), " with id ",
                       expected.id(), ", which its sizes and epoch imply"));
    }
  }
  return groups;
}

}  // namespace

v1::ParallelConfig ToWire(const ParallelConfig& config) {
  v1::ParallelConfig wire;
  wire.set_tp(static_cast<uint32_t>(config.tp));
  wire.set_cp(static_cast<uint32_t>(config.cp));
  wire.set_pp(static_cast<uint32_t>(config.pp));
  wire.set_replicas(static_cast<uint32_t>(config.replicas));
  return wire;
}

v1::Topology ToWire(const Topology& topology) {
  v1::Topology wire;
  wire.set_replica(static_cast<uint32_t>(topology.replica.value()));
  wire.set_epoch(topology.epoch.value());
  wire.set_term(topology.term.value());
  *wire.mutable_config() = ToWire(topology.config);
  for (const RankPlacement& placement : topology.ranks) {
    const RankCoordinates at = CoordinatesOf(topology.config, placement.rank);
    v1::RankPlacement* rank = wire.add_ranks();
    rank->set_rank(static_cast<uint32_t>(placement.rank.value()));
    rank->set_pp_rank(static_cast<uint32_t>(at.pp_rank));
    rank->set_cp_rank(static_cast<uint32_t>(at.cp_rank));
    rank->set_tp_rank(static_cast<uint32_t>(at.tp_rank));
    rank->set_worker_id(placement.worker_id);
    rank->set_incarnation(placement.incarnation.value());
    rank->set_address(placement.address);
    rank->set_local_address(placement.local_address);
  }
  for (const GroupSpec& group : topology.groups) *wire.add_groups() = ToWireGroup(group);
  return wire;
}

v1::ModelSpec ToWire(const ModelSpec& model) {
  v1::ModelSpec wire;
  wire.set_architecture(model.architecture);
  wire.set_name(model.name);
  wire.set_layers(static_cast<uint32_t>(model.layers));
  wire.set_hidden(static_cast<uint32_t>(model.hidden));
  wire.set_heads(static_cast<uint32_t>(model.heads));
  wire.set_kv_heads(static_cast<uint32_t>(model.kv_heads));
  wire.set_head_dim(static_cast<uint32_t>(model.head_dim));
  wire.set_ffn(static_cast<uint32_t>(model.ffn));
  wire.set_vocabulary(static_cast<uint32_t>(model.vocabulary));
  wire.set_max_positions(static_cast<uint32_t>(model.max_positions));
  wire.set_dtype(model.dtype);
  wire.set_digest(model.digest);
  wire.set_weight_bytes(model.weight_bytes);
  for (int id : model.eos_token_ids) wire.add_eos_token_ids(static_cast<uint32_t>(id));
  wire.set_sliding_window(static_cast<uint32_t>(model.sliding_window));
  return wire;
}

absl::StatusOr<ParallelConfig> FromWire(const v1::ParallelConfig& wire) {
  MUSTER_RETURN_IF_ERROR(CheckWireRange("tp", wire.tp(), 1, kMaxWireAxis));
  MUSTER_RETURN_IF_ERROR(CheckWireRange("cp", wire.cp(), 1, kMaxWireAxis));
  MUSTER_RETURN_IF_ERROR(CheckWireRange("pp", wire.pp(), 1, kMaxWireAxis));
  MUSTER_RETURN_IF_ERROR(CheckWireRange("replicas", wire.replicas(), 1, kMaxWireAxis));
  MUSTER_RETURN_IF_ERROR(
      CheckWireRange("tp x cp x pp x replicas",
                     uint64_t{wire.tp()} * wire.cp() * wire.pp() * wire.replicas(), 1, kMaxRanks));
  return ParallelConfig{.tp = static_cast<int>(wire.tp()),
                        .cp = static_cast<int>(wire.cp()),
                        .pp = static_cast<int>(wire.pp()),
                        .replicas = static_cast<int>(wire.replicas())};
}

absl::StatusOr<Topology> FromWire(const v1::Topology& wire) {
  Topology topology{.epoch = Epoch(wire.epoch()), .term = Term(wire.term())};
  MUSTER_ASSIGN_OR_RETURN(topology.config, FromWire(wire.config()));
  MUSTER_RETURN_IF_ERROR(CheckWireRange("topology.replica", wire.replica(), 0,
                                        static_cast<uint64_t>(topology.config.replicas) - 1));
  topology.replica = ReplicaIndex(static_cast<int>(wire.replica()));
  MUSTER_RETURN_IF_ERROR(
      CheckWireRange("topology.epoch", wire.epoch(), 1, std::numeric_limits<uint64_t>::max()));
  MUSTER_RETURN_IF_ERROR(
      CheckWireRange("topology.term", wire.term(), 1, std::numeric_limits<uint64_t>::max()));
  MUSTER_ASSIGN_OR_RETURN(topology.ranks, RanksFromWire(wire, topology.config));
  MUSTER_ASSIGN_OR_RETURN(topology.groups, GroupsFromWire(wire, topology.config, topology.epoch));
  return topology;
}

absl::StatusOr<ModelSpec> FromWire(const v1::ModelSpec& wire) {
  MUSTER_RETURN_IF_ERROR(CheckWireLength("model.architecture", wire.architecture()));
  MUSTER_RETURN_IF_ERROR(CheckWireLength("model.name", wire.name()));
  MUSTER_RETURN_IF_ERROR(CheckWireLength("model.dtype", wire.dtype()));
  MUSTER_RETURN_IF_ERROR(CheckWireLength("model.digest", wire.digest()));
  // So that products of any three of these fit 63 bits, and heads * head_dim an int.
  const std::tuple<const char*, uint32_t, uint32_t> dimensions[] = {
      {"model.hidden", wire.hidden(), 1 << 20},
      {"model.heads", wire.heads(), 1 << 14},
      {"model.kv_heads", wire.kv_heads(), 1 << 14},
      {"model.head_dim", wire.head_dim(), 1 << 14},
      {"model.ffn", wire.ffn(), 1 << 24},
      {"model.vocabulary", wire.vocabulary(), 1 << 26},
      {"model.max_positions", wire.max_positions(), 1 << 30}};
  for (const auto& [field, value, most] : dimensions) {
    MUSTER_RETURN_IF_ERROR(CheckWireRange(field, value, 1, most));
  }
  MUSTER_RETURN_IF_ERROR(CheckWireRange("model.layers", wire.layers(), 0, 4096));
  MUSTER_RETURN_IF_ERROR(CheckWireRange("model.sliding_window", wire.sliding_window(), 0, 1 << 30));
  MUSTER_RETURN_IF_ERROR(CheckWireRange("model.eos_token_ids (count)",
                                        static_cast<uint64_t>(wire.eos_token_ids_size()), 0,
                                        kMaxEndTokens));
  ModelSpec model{.architecture = wire.architecture(),
                  .name = wire.name(),
                  .layers = static_cast<int>(wire.layers()),
                  .hidden = static_cast<int>(wire.hidden()),
                  .heads = static_cast<int>(wire.heads()),
                  .kv_heads = static_cast<int>(wire.kv_heads()),
                  .head_dim = static_cast<int>(wire.head_dim()),
                  .ffn = static_cast<int>(wire.ffn()),
                  .vocabulary = static_cast<int>(wire.vocabulary()),
                  .max_positions = static_cast<int>(wire.max_positions()),
                  .dtype = wire.dtype(),
                  .digest = wire.digest(),
                  .weight_bytes = wire.weight_bytes(),
                  .sliding_window = static_cast<int>(wire.sliding_window())};
  for (uint32_t id : wire.eos_token_ids()) {
    MUSTER_RETURN_IF_ERROR(CheckWireRange("model.eos_token_ids", id, 0, 1 << 26));
    model.eos_token_ids.push_back(static_cast<int>(id));
  }
  return model;
}

absl::Status CheckWorkerId(absl::string_view worker_id) {
  if (IsName(worker_id)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("worker id of ", worker_id.size(),
                   " bytes; it can be 1 to 128 letters, digits, '.', '_', '-'"));
}

}  // namespace muster
