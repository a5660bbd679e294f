#include "base/wire_operation_json.h"

#include <google/protobuf/util/time_util.h>

#include "absl/strings/strip.h"

namespace muster {
namespace {

using ::google::protobuf::util::TimeUtil;

std::string WithoutPrefix(const std::string& name, absl::string_view prefix) {
  return std::string(absl::StripPrefix(absl::string_view(name), prefix));
}

Json RanksJson(const v1::ReplicaResize& resize) {
  Json ranks = Json::array();
  for (const auto& rank : resize.ranks()) {
    ranks.push_back({{"rank", rank.rank()},
                     {"worker_id", rank.worker_id()},
                     {"progress", ProgressJson(rank.progress())}});
  }
  return ranks;
}

Json ResizeJson(const v1::ReplicaResize& resize) {
  Json json = {{"replica", resize.replica()},
               {"stage", StageName(resize.stage())},
               {"from_epoch", resize.from_epoch()},
               {"to_epoch", resize.to_epoch()}};
  json["from"] = ConfigJson(resize.from());
  json["to"] = ConfigJson(resize.to());
  json["note"] = resize.note();
  json["ranks"] = RanksJson(resize);
  json["prepare_ms"] = Milliseconds(resize.prepare_time());
  json["pause_ms"] = Milliseconds(resize.pause());
  json["kv_blocks_moved"] = resize.kv_blocks_moved();
  json["kv_blocks_kept"] = resize.kv_blocks_kept();
  json["kv_bytes_moved"] = resize.kv_bytes_moved();
  json["kv_bytes_in_pause"] = resize.kv_bytes_in_pause();
  json["copy_ms"] = Milliseconds(resize.copy_time());
  json["copy_bytes_per_second"] = resize.copy_bytes_per_second();
  json["sequences"] = resize.sequences();
  json["tokens_rebuilt"] = resize.tokens_rebuilt();
  json["sequences_dropped"] = resize.sequences_dropped();
  return json;
}

Json RankChangesJson(const v1::ReplicaChange& change) {
  Json ranks = Json::array();
  for (const auto& rank : change.ranks()) {
    ranks.push_back({{"worker_id", rank.worker_id()},
                     {"role", RoleName(rank.role())},
                     {"rank", rank.rank()},
                     {"weight_bytes_loaded", rank.weight_bytes_loaded()},
                     {"weight_bytes_shared", rank.weight_bytes_shared()},
                     {"peak_bytes", rank.peak_bytes()},
                     {"total_bytes", rank.total_bytes()},
                     {"kv_blocks_peak", rank.kv_blocks_peak()},
                     {"kv_blocks_total", rank.kv_blocks_total()}});
  }
  return ranks;
}

Json FlowsJson(const v1::ReplicaChange& change) {
  Json flows = Json::array();
  for (const auto& flow : change.flows()) {
    flows.push_back({{"from_rank", flow.from_rank()},
                     {"to_rank", flow.to_rank()},
                     {"blocks", flow.blocks()},
                     {"bytes", flow.bytes()}});
  }
  return flows;
}

}  // namespace

Json OperationJson(const v1::Operation& operation) {
  Json json = {{"id", operation.id()},
               {"kind", KindName(operation.kind())},
               {"state", StateName(operation.state())},
               {"summary", operation.summary()},
               {"no_change", operation.no_change()},
               {"started", TimeUtil::ToString(operation.started())}};
  if (operation.has_ended()) {
    json["ended"] = TimeUtil::ToString(operation.ended());
    json["took_ms"] = Milliseconds(operation.ended() - operation.started());
  }
  if (operation.has_failure()) json["failure"] = FailureJson(operation.failure());
  json["replicas"] = Json::array();
  for (const auto& resize : operation.replicas()) json["replicas"].push_back(ResizeJson(resize));
  return json;
}

Json OperationsJson(const v1::ListOperationsResponse& operations) {
  Json json = {{"operations", Json::array()}};
  for (const auto& operation : operations.operations()) {
    json["operations"].push_back(OperationJson(operation));
  }
  return json;
}

Json ChangeJson(const v1::ReplicaChange& change) {
  Json json = {{"replica", change.replica()},
               {"from_epoch", change.from_epoch()},
               {"to_epoch", change.to_epoch()}};
  json["from"] = ConfigJson(change.from());
  json["to"] = ConfigJson(change.to());
  json["note"] = change.note();
  json["ranks"] = RankChangesJson(change);
  json["flows"] = FlowsJson(change);
  json["kv_blocks_moved"] = change.kv_blocks_moved();
  json["kv_blocks_kept"] = change.kv_blocks_kept();
  json["kv_bytes_moved"] = change.kv_bytes_moved();
  json["capacity_tokens_before"] = change.capacity_tokens_before();
  json["capacity_tokens_after"] = change.capacity_tokens_after();
  json["tokens_to_rebuild"] = change.tokens_to_rebuild();
  json["lost_sequences"] = change.lost_sequences();
  json["lost_count"] = change.lost_count();
  json["predicted_prepare_ms"] = Milliseconds(change.predicted_prepare());
  json["predicted_pause_ms"] = Milliseconds(change.predicted_pause());
  return json;
}

Json PlanWithChangesJson(const v1::PlanTopologyResponse& plan) {
  Json json = PlanJson(plan);
  json["changes"] = Json::array();
  for (const auto& change : plan.changes()) json["changes"].push_back(ChangeJson(change));
  return json;
}

std::string KindName(v1::OperationKind kind) {
  return WithoutPrefix(v1::OperationKind_Name(kind), "OPERATION_KIND_");
}

std::string StateName(v1::OperationState state) {
  return WithoutPrefix(v1::OperationState_Name(state), "OPERATION_STATE_");
}

std::string StageName(v1::ResizeStage stage) {
  return WithoutPrefix(v1::ResizeStage_Name(stage), "RESIZE_STAGE_");
}

std::string RoleName(v1::RankChange::Role role) {
  return WithoutPrefix(v1::RankChange::Role_Name(role), "ROLE_");
}

}  // namespace muster
