#include "coordinator/service/operation_messages.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"

namespace muster {
namespace {

constexpr size_t kMaxIdBytes = 64;
constexpr absl::Duration kLongestTimeout = absl::Hours(1);
constexpr uint32_t kMaxAxis = 1024;
constexpr int kMaxBuckets = 32;
constexpr uint32_t kMaxRows = 512;
constexpr int kMaxDrops = 4096;
constexpr size_t kMaxNameBytes = 257;  // "CLIENT/SEQUENCE", each of at most 128

uint32_t Unsigned(int value) { return static_cast<uint32_t>(value); }

absl::Status Invalid(const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = ErrorReason::kInvalidRequest});
}

v1::ReplicaResize ToWireResize(const ReplicaResize& resize) {
  v1::ReplicaResize wire;
  wire.set_replica(Unsigned(resize.replica.value()));
  wire.set_stage(static_cast<v1::ResizeStage>(resize.stage));
  wire.set_from_epoch(resize.from_epoch.value());
  wire.set_to_epoch(resize.to_epoch.value());
  *wire.mutable_from() = ToWire(resize.from);
  *wire.mutable_to() = ToWire(resize.to);
  for (const RankProgress& rank : resize.ranks) {
    v1::RankProgress* it = wire.add_ranks();
    it->set_rank(Unsigned(rank.rank.value()));
    it->set_worker_id(rank.worker_id);
    *it->mutable_progress() = ToWire(rank.progress);
  }
  *wire.mutable_prepare_time() = ToWire(resize.prepare_time);
  wire.set_note(resize.note);
  if (resize.stage != ResizeStage::kReleasing && resize.stage != ResizeStage::kDone) return wire;
  const Takeover& takeover = resize.takeover;
  *wire.mutable_pause() = ToWire(takeover.pause);
  wire.set_kv_blocks_moved(takeover.kv_blocks_moved);
  wire.set_kv_blocks_kept(takeover.kv_blocks_kept);
  wire.set_kv_bytes_moved(takeover.kv_bytes_moved);
  wire.set_kv_bytes_in_pause(takeover.kv_bytes_in_pause);
  *wire.mutable_copy_time() = ToWire(takeover.copy_time);
  wire.set_copy_bytes_per_second(takeover.copy_bytes_per_second);
  wire.set_sequences(Unsigned(takeover.sequences));
  wire.set_tokens_rebuilt(takeover.tokens_rebuilt);
  wire.set_sequences_dropped(Unsigned(takeover.sequences_dropped));
  return wire;
}

v1::RankChange ToWireRank(const RankChange& rank) {
  v1::RankChange wire;
  wire.set_worker_id(rank.worker_id);
  wire.set_role(static_cast<v1::RankChange::Role>(rank.role));
  wire.set_rank(Unsigned(rank.rank.value()));
  wire.set_weight_bytes_loaded(rank.weight_bytes_loaded);
  wire.set_weight_bytes_shared(rank.weight_bytes_shared);
  wire.set_peak_bytes(rank.peak_bytes);
  wire.set_total_bytes(rank.total_bytes);
  wire.set_kv_blocks_peak(rank.kv_blocks_peak);
  wire.set_kv_blocks_total(rank.kv_blocks_total);
  return wire;
}

template <typename Wire>
absl::StatusOr<OperationRequest> Common(const Wire& wire, OperationKind kind) {
  if (wire.request_id().empty() || wire.request_id().size() > kMaxIdBytes) {
    return Invalid(absl::StrCat("request_id has ", wire.request_id().size(),
                                " bytes; it can have 1 to ", kMaxIdBytes));
  }
  OperationRequest request{.id = wire.request_id(), .kind = kind};
  if (wire.has_timeout()) {
    MUSTER_ASSIGN_OR_RETURN(request.timeout, TimeoutFromWire(wire.timeout(), kLongestTimeout));
  }
  return request;
}

absl::Status CheckBuckets(const google::protobuf::RepeatedField<uint32_t>& buckets) {
  if (buckets.size() > kMaxBuckets) {
    return Invalid(
        absl::StrCat("buckets has ", buckets.size(), " entries; it can have ", kMaxBuckets));
  }
  for (int i = 0; i < buckets.size(); ++i) {
    const uint32_t rows = buckets[i];
    const bool power_of_two = rows != 0 && (rows & (rows - 1)) == 0;
    if (!power_of_two || rows > kMaxRows || (i > 0 && rows >= buckets[i - 1])) {
      return Invalid(absl::StrCat("buckets[", i, "] is ", rows,
                                  "; buckets are powers of two up to 512, largest first"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckDrop(const google::protobuf::RepeatedPtrField<std::string>& drop) {
  if (drop.size() > kMaxDrops) {
    return Invalid(absl::StrCat("drop has ", drop.size(), " entries; it can have ", kMaxDrops));
  }
  for (const std::string& name : drop) {
    const bool fits = name == "*" || (absl::StrContains(name, '/') && name.size() <= kMaxNameBytes);
    if (!fits) return Invalid("drop names a sequence as CLIENT/SEQUENCE, or all of them as *");
  }
  return absl::OkStatus();
}

// Sizes, buckets and drop of a request that has them.
template <typename Wire>
absl::Status TakeTopology(const Wire& wire, OperationRequest* request) {
  MUSTER_ASSIGN_OR_RETURN(request->sizes, SizesFromWire(wire.config()));
  MUSTER_RETURN_IF_ERROR(CheckBuckets(wire.buckets()));
  MUSTER_RETURN_IF_ERROR(CheckDrop(wire.drop()));
  request->buckets.assign(wire.buckets().begin(), wire.buckets().end());
  request->drop.assign(wire.drop().begin(), wire.drop().end());
  return absl::OkStatus();
}

}  // namespace

v1::Operation ToWire(const Operation& operation) {
  v1::Operation wire;
  wire.set_id(operation.id);
  wire.set_kind(static_cast<v1::OperationKind>(operation.kind));
  wire.set_state(static_cast<v1::OperationState>(operation.state));
  wire.set_summary(operation.summary);
  for (const ReplicaResize& resize : operation.replicas) {
    *wire.add_replicas() = ToWireResize(resize);
  }
  if (!operation.failure.ok()) SetFailure(operation.failure, wire.mutable_failure());
  *wire.mutable_started() = ToWire(operation.started);
  if (operation.ended.has_value()) *wire.mutable_ended() = ToWire(*operation.ended);
  wire.set_no_change(operation.no_change);
  return wire;
}

v1::ReplicaChange ToWire(const ReplicaChange& change) {
  v1::ReplicaChange wire;
  wire.set_replica(Unsigned(change.to.replica.value()));
  wire.set_from_epoch(change.from.epoch.value());
  wire.set_to_epoch(change.to.epoch.value());
  *wire.mutable_from() = ToWire(change.from.config);
  *wire.mutable_to() = ToWire(change.to.config);
  for (const RankChange& rank : change.ranks) *wire.add_ranks() = ToWireRank(rank);
  for (const BlockFlow& flow : change.flows) {
    v1::BlockFlow* it = wire.add_flows();
    it->set_from_rank(Unsigned(flow.from.value()));
    it->set_to_rank(Unsigned(flow.to.value()));
    it->set_blocks(flow.blocks);
    it->set_bytes(flow.bytes);
  }
  wire.set_kv_blocks_moved(change.kv_blocks_moved);
  wire.set_kv_blocks_kept(change.kv_blocks_kept);
  wire.set_kv_bytes_moved(change.kv_bytes_moved);
  wire.set_capacity_tokens_before(change.capacity_tokens_before);
  wire.set_capacity_tokens_after(change.capacity_tokens_after);
  wire.set_tokens_to_rebuild(change.tokens_to_rebuild);
  for (const SequenceName& name : change.lost_sequences) {
    wire.add_lost_sequences(absl::StrCat(name.client_id, "/", name.sequence_id));
  }
  wire.set_lost_count(Unsigned(change.lost_count));
  *wire.mutable_predicted_prepare() = ToWire(change.predicted_prepare);
  *wire.mutable_predicted_pause() = ToWire(change.predicted_pause);
  wire.set_note(change.note);
  return wire;
}

absl::StatusOr<OperationRequest> RequestFromWire(const v1::ScaleContextParallelRequest& wire) {
  MUSTER_ASSIGN_OR_RETURN(OperationRequest request,
                          Common(wire, OperationKind::kScaleContextParallel));
  if (wire.cp() == 0 || wire.cp() > kMaxAxis) {
    return RefusePlan(absl::StrCat("cannot plan cp=", wire.cp(), ": it can be 1 to 1,024."));
  }
  request.sizes.cp = static_cast<int>(wire.cp());
  return request;
}

absl::StatusOr<OperationRequest> RequestFromWire(const v1::ApplyTopologyRequest& wire) {
  MUSTER_ASSIGN_OR_RETURN(OperationRequest request, Common(wire, OperationKind::kApplyTopology));
  MUSTER_RETURN_IF_ERROR(TakeTopology(wire, &request));
  return request;
}

absl::StatusOr<OperationRequest> RequestFromWire(const v1::PlanTopologyRequest& wire) {
  OperationRequest request{.kind = OperationKind::kApplyTopology};
  MUSTER_RETURN_IF_ERROR(TakeTopology(wire, &request));
  return request;
}

absl::StatusOr<OperationRequest> RequestFromWire(const v1::DrainWorkerRequest& wire) {
  MUSTER_ASSIGN_OR_RETURN(OperationRequest request, Common(wire, OperationKind::kDrainWorker));
  MUSTER_RETURN_IF_ERROR(CheckWorkerId(wire.worker_id()));
  request.worker_id = wire.worker_id();
  return request;
}

absl::StatusOr<ParallelConfig> SizesFromWire(const v1::ParallelConfig& wire) {
  const std::pair<const char*, uint32_t> sizes[] = {
      {"tp", wire.tp()}, {"cp", wire.cp()}, {"pp", wire.pp()}, {"replicas", wire.replicas()}};
  for (const auto& [name, size] : sizes) {
    if (size > kMaxAxis) {
      return Invalid(absl::StrCat(name, " is ", size, "; it can be 1 to 1,024, or 0 to stay"));
    }
  }
  return ParallelConfig{.tp = static_cast<int>(wire.tp()),
                        .cp = static_cast<int>(wire.cp()),
                        .pp = static_cast<int>(wire.pp()),
                        .replicas = static_cast<int>(wire.replicas())};
}

}  // namespace muster
