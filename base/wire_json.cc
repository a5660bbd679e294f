#include "base/wire_json.h"

#include <google/protobuf/util/time_util.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace muster {
namespace {

using ::google::protobuf::util::TimeUtil;

std::string WithoutPrefix(const std::string& name, absl::string_view prefix) {
  return std::string(absl::StripPrefix(absl::string_view(name), prefix));
}

Json DetailJson(const v1::ErrorDetail& detail) {
  return {{"reason", ReasonName(detail.reason())},
          {"epoch", detail.epoch()},
          {"ranks", detail.ranks()},
          {"workers", detail.workers()},
          {"culprit_count", detail.culprit_count()},
          {"phase", detail.phase()},
          {"retriable", detail.retriable()}};
}

Json LedgerJson(const v1::RankLedger& ledger) {
  Json bytes = Json::object();
  for (const auto& entry : ledger.entries()) bytes[entry.tag()] = entry.bytes();
  return {{"rank", ledger.rank()},
          {"bytes", bytes},
          {"kv_blocks", ledger.kv_blocks()},
          {"block_tokens", ledger.block_tokens()},
          {"buckets", ledger.buckets()}};
}

}  // namespace

Json ConfigJson(const v1::ParallelConfig& config) {
  return {{"tp", config.tp()},
          {"cp", config.cp()},
          {"pp", config.pp()},
          {"replicas", config.replicas()}};
}

Json TopologyJson(const v1::Topology& topology) {
  Json json = {
      {"replica", topology.replica()}, {"epoch", topology.epoch()}, {"term", topology.term()}};
  json["config"] = ConfigJson(topology.config());
  json["ranks"] = Json::array();
  for (const auto& rank : topology.ranks()) {
    json["ranks"].push_back({{"rank", rank.rank()},
                             {"pp_rank", rank.pp_rank()},
                             {"cp_rank", rank.cp_rank()},
                             {"tp_rank", rank.tp_rank()},
                             {"worker_id", rank.worker_id()},
                             {"address", rank.address()}});
  }
  json["groups"] = Json::array();
  for (const auto& group : topology.groups()) {
    json["groups"].push_back(
        {{"id", group.id()}, {"kind", KindName(group.kind())}, {"ranks", group.ranks()}});
  }
  return json;
}

Json ModelJson(const v1::ModelSpec& model) {
  return {{"name", model.name()},
          {"architecture", model.architecture()},
          {"layers", model.layers()},
          {"hidden", model.hidden()},
          {"heads", model.heads()},
          {"kv_heads", model.kv_heads()},
          {"head_dim", model.head_dim()},
          {"ffn", model.ffn()},
          {"vocabulary", model.vocabulary()},
          {"max_positions", model.max_positions()},
          {"dtype", model.dtype()},
          {"weight_bytes", model.weight_bytes()},
          {"digest", model.digest()},
          {"eos_token_ids", model.eos_token_ids()}};
}

Json DeviceJson(const v1::DeviceReport& device) {
  return {{"kind", device.kind()},
          {"ordinal", device.ordinal()},
          {"name", device.name()},
          {"threads", device.threads()},
          {"total_bytes", device.total_bytes()},
          {"free_bytes", device.free_bytes()}};
}

Json ReplicaJson(const v1::ReplicaStatus& replica) {
  Json json = {{"replica", replica.replica()}, {"state", StateName(replica.state())}};
  if (replica.has_topology()) json["topology"] = TopologyJson(replica.topology());
  if (replica.has_failure()) json["failure"] = FailureJson(replica.failure());
  json["phases_ms"] = Json::object();
  for (const auto& phase : replica.phases()) {
    json["phases_ms"][phase.phase()] = Milliseconds(phase.duration());
  }
  json["ledgers"] = Json::array();
  for (const auto& ledger : replica.ledgers()) json["ledgers"].push_back(LedgerJson(ledger));
  if (replica.has_serving_since()) {
    json["serving_since"] = TimeUtil::ToString(replica.serving_since());
  }
  return json;
}

Json WorkerJson(const v1::WorkerStatus& worker) {
  Json json = {{"worker_id", worker.worker_id()},
               {"address", worker.address()},
               {"device", DeviceJson(worker.device())},
               {"build", worker.build()},
               {"domain", worker.domain()},
               {"model", worker.model().name()},
               {"state", StateName(worker.state())}};
  if (worker.has_replica()) json["replica"] = worker.replica();
  if (worker.has_rank()) json["rank"] = worker.rank();
  json["epoch"] = worker.epoch();
  json["drained"] = worker.drained();
  json["progress"] = ProgressJson(worker.progress());
  json["heartbeat_age_ms"] = Milliseconds(worker.heartbeat_age());
  json["step"] = worker.step();
  json["tokens"] = worker.tokens();
  json["queued_requests"] = worker.queued_requests();
  json["kv_blocks_used"] = worker.kv_blocks_used();
  json["kv_blocks_total"] = worker.kv_blocks_total();
  return json;
}

Json EventJson(const v1::WatchEventsResponse& event) {
  Json json = {{"sequence", event.sequence()},
               {"time", TimeUtil::ToString(event.time())},
               {"kind", KindName(event.kind())}};
  if (event.has_replica()) json["replica"] = event.replica();
  if (event.epoch() != 0) json["epoch"] = event.epoch();
  if (event.has_rank()) json["rank"] = event.rank();
  if (!event.worker_id().empty()) json["worker_id"] = event.worker_id();
  if (!event.phase().empty()) json["phase"] = event.phase();
  if (!event.operation_id().empty()) json["operation_id"] = event.operation_id();
  json["message"] = event.message();
  return json;
}

Json FailureJson(const v1::Failure& failure) {
  return {{"code", failure.code()},
          {"message", failure.message()},
          {"detail", DetailJson(failure.detail())}};
}

Json ProgressJson(const v1::Progress& progress) {
  return {{"phase", progress.phase()},
          {"done", progress.done()},
          {"total", progress.total()},
          {"unit", progress.unit()}};
}

Json PlanJson(const v1::PlanTopologyResponse& plan) {
  Json json = {{"topologies", Json::array()}, {"footprints", Json::array()}};
  for (const auto& topology : plan.topologies()) {
    json["topologies"].push_back(TopologyJson(topology));
  }
  for (const auto& footprint : plan.footprints()) {
    json["footprints"].push_back({{"rank", footprint.rank()},
                                  {"weight_bytes", footprint.weight_bytes()},
                                  {"kv_block_bytes", footprint.kv_block_bytes()}});
  }
  return json;
}

double Milliseconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(TimeUtil::DurationToMicroseconds(duration)) / 1000;
}

std::string StateName(v1::ReplicaState state) {
  return WithoutPrefix(v1::ReplicaState_Name(state), "REPLICA_STATE_");
}

std::string StateName(v1::WorkerState state) {
  return WithoutPrefix(v1::WorkerState_Name(state), "WORKER_STATE_");
}

std::string KindName(v1::GroupKind kind) {
  return WithoutPrefix(v1::GroupKind_Name(kind), "GROUP_KIND_");
}

std::string KindName(v1::EventKind kind) {
  return WithoutPrefix(v1::EventKind_Name(kind), "EVENT_KIND_");
}

std::string EventWords(v1::EventKind kind) {
  return absl::AsciiStrToLower(absl::StrReplaceAll(KindName(kind), {{"_", " "}}));
}

std::string ReasonName(v1::ErrorReason reason) {
  return WithoutPrefix(v1::ErrorReason_Name(reason), "ERROR_REASON_");
}

std::string ToLine(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace muster
