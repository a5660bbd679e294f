#include "worker/service/worker_statusz.h"

#include "base/wire_json.h"
#include "base/wire_report.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"
#include "proto/muster/v1/fleet.pb.h"

namespace muster {
namespace {

Json BytesJson(const std::vector<LedgerEntry>& ledger) {
  Json bytes = Json::object();
  for (const LedgerEntry& entry : ledger) bytes[entry.tag] = entry.bytes;
  return bytes;
}

Json EpochJson(const EpochStatus& epoch) {
  const EpochReport& report = epoch.report;
  Json json = {{"replica", report.replica.value()},
               {"epoch", report.epoch.value()},
               {"rank", epoch.rank.value()},
               {"state", WorkerStateName(report.state)}};
  json["progress"] = ProgressJson(ToWire(report.progress));
  json["step"] = report.step.value();
  json["tokens"] = report.tokens;
  json["queued_requests"] = report.queued_requests;
  json["kv_blocks_used"] = report.kv_blocks_used;
  json["kv_blocks_total"] = report.kv_blocks_total;
  json["ledger"] = {{"rank", epoch.rank.value()},
                    {"bytes", BytesJson(epoch.ledger)},
                    {"kv_blocks", report.kv_blocks_total},
                    {"block_tokens", epoch.block_tokens},
                    {"buckets", epoch.buckets}};
  json["topology"] = TopologyJson(ToWire(epoch.topology));
  if (!epoch.failure.ok()) {
    v1::Failure failure;
    SetFailure(epoch.failure, &failure);
    json["failure"] = FailureJson(failure);
  }
  return json;
}

}  // namespace

std::string WorkerStatusz(const DaemonFacts& daemon, const DeviceReport& device,
                          const ModelSpec& model, const std::vector<EpochStatus>& epochs,
                          absl::Time now) {
  Json json = {{"daemon", DaemonJson(daemon, now)}};
  json["worker"] = {{"worker_id", daemon.name},
                    {"address", daemon.address},
                    {"device", DeviceJson(ToWire(device))}};
  json["model"] = ModelJson(ToWire(model));
  json["epochs"] = Json::array();
  for (const EpochStatus& epoch : epochs) json["epochs"].push_back(EpochJson(epoch));
  return StatuszText(json);
}

}  // namespace muster
