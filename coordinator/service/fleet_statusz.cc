#include "coordinator/service/fleet_statusz.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/wire_json.h"
#include "base/wire_operation_json.h"
#include "coordinator/service/fleet_messages.h"
#include "coordinator/service/operation_messages.h"

namespace muster {
namespace {

Json ReplicasJson(const FleetTopology& topology) {
  Json replicas = Json::array();
  for (const ReplicaStatus& replica : topology.replicas) {
    Json json = ReplicaJson(ToWire(replica));
    if (replica.next.has_value()) json["next"] = TopologyJson(ToWire(*replica.next));
    replicas.push_back(std::move(json));
  }
  return replicas;
}

Json WorkersJson(const std::vector<WorkerStatus>& workers) {
  Json array = Json::array();
  for (const WorkerStatus& worker : workers) array.push_back(WorkerJson(ToWire(worker)));
  return array;
}

Json OperationsArray(const std::vector<Operation>& operations) {
  Json array = Json::array();
  for (const Operation& operation : operations) array.push_back(OperationJson(ToWire(operation)));
  return array;
}

Json EventsJson(EventLog& log) {
  std::vector<Event> events = log.ReadNewest(kStatuszEvents);
  std::reverse(events.begin(), events.end());
  Json array = Json::array();
  for (const Event& event : events) array.push_back(EventJson(ToWire(event)));
  return array;
}

// That of the first worker with a rank, or else of the first that there is.
Json FleetModelJson(const std::vector<WorkerStatus>& workers) {
  if (workers.empty()) return nullptr;
  const auto ranked = std::find_if(workers.begin(), workers.end(),
                                   [](const WorkerStatus& it) { return it.rank.has_value(); });
  const WorkerStatus& worker = ranked != workers.end() ? *ranked : workers.front();
  return ModelJson(ToWire(worker.info.model));
}

}  // namespace

std::string FleetStatusz(Fleet& fleet, const DaemonFacts& daemon, absl::Time now) {
  const FleetTopology topology = fleet.GetTopology();
  const std::vector<WorkerStatus> workers = fleet.ListWorkers();
  Json json = {{"daemon", DaemonJson(daemon, now)}, {"term", topology.term.value()}};
  json["config"] = ConfigJson(ToWire(topology.config));
  json["model"] = FleetModelJson(workers);
  json["replicas"] = ReplicasJson(topology);
  json["workers"] = WorkersJson(workers);
  json["operations"] = OperationsArray(fleet.ListOperations());
  json["events"] = EventsJson(fleet.events());
  return StatuszText(json);
}

}  // namespace muster
