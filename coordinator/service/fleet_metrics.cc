#include "coordinator/service/fleet_metrics.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/wire_json.h"

namespace muster {
namespace {

void AddWorkers(const std::vector<WorkerStatus>& workers, absl::Duration lease, MetricsText& text) {
  std::map<WorkerState, int> counts;
  for (const WorkerStatus& worker : workers) ++counts[worker.state];
  text.Gauges("muster_coordinator_workers", "Workers that are enlisted, by state.");
  for (int state = 1; state < v1::WorkerState_ARRAYSIZE; ++state) {
    text.Add(counts[static_cast<WorkerState>(state)],
             {{"state", StateName(static_cast<v1::WorkerState>(state))}});
  }
  text.Gauges("muster_coordinator_worker_heartbeat_age_seconds",
              "Time since a worker was heard of last.");
  for (const WorkerStatus& worker : workers) {
    text.Add(absl::ToDoubleSeconds(worker.heartbeat_age), {{"worker_id", worker.info.worker_id}});
  }
  text.Gauge("muster_coordinator_lease_seconds", "Longest silence of a worker before it is lost.",
             absl::ToDoubleSeconds(lease));
}

void AddReplicas(const FleetTopology& topology, MetricsText& text) {
  text.Gauge("muster_coordinator_term", "Of this coordinator; a higher one has replaced a lower.",
             static_cast<double>(topology.term.value()));
  std::map<ReplicaState, int> counts;
  for (const ReplicaStatus& replica : topology.replicas) ++counts[replica.state];
  text.Gauges("muster_coordinator_replicas", "Replicas of the model, by state.");
  for (int state = 1; state < v1::ReplicaState_ARRAYSIZE; ++state) {
    text.Add(counts[static_cast<ReplicaState>(state)],
             {{"state", StateName(static_cast<v1::ReplicaState>(state))}});
  }
  text.Gauges("muster_coordinator_replica_epoch",
              "Number of the newest epoch of a replica that has served, or is to serve first.");
  for (const ReplicaStatus& replica : topology.replicas) {
    if (!replica.topology.has_value()) continue;
    const ParallelConfig& config = replica.topology->config;
    text.Add(static_cast<double>(replica.topology->epoch.value()),
             {{"replica", absl::StrCat(replica.replica.value())},
              {"tp", absl::StrCat(config.tp)},
              {"cp", absl::StrCat(config.cp)}});
  }
}

void AddEvents(const FleetCounters& counters, MetricsText& text) {
  text.Counters("muster_coordinator_events_total", "Events since this coordinator started.");
  for (int kind = 1; kind < v1::EventKind_ARRAYSIZE; ++kind) {
    text.Add(static_cast<double>(counters.events[static_cast<size_t>(kind)].value()),
             {{"kind", KindName(static_cast<v1::EventKind>(kind))}});
  }
  text.CounterOf(
      "muster_coordinator_formations_total",
      "Epochs that were begun without one that served: beyond the first of each replica, "
      "re-formations.",
      static_cast<double>(
          counters.events[static_cast<size_t>(EventKind::kTopologyPlanned)].value()));
}

void AddResizes(Coordinator& coordinator, const FleetCounters& counters, MetricsText& text) {
  const std::vector<Operation> operations = coordinator.fleet().ListOperations();
  text.Gauge("muster_coordinator_operations_running", "Operations of operators that are under way.",
             static_cast<double>(std::count_if(operations.begin(), operations.end(),
                                               [](const Operation& operation) {
                                                 return operation.state == OperationState::kRunning;
                                               })));
  text.Counters("muster_coordinator_resizes_total", "Changes of a replica's shape, by outcome.");
  text.Add(static_cast<double>(counters.resizes_done.value()), {{"outcome", "done"}});
  text.Add(static_cast<double>(counters.resizes_rolled_back.value()), {{"outcome", "rolled_back"}});
  text.Add(static_cast<double>(counters.resizes_failed.value()), {{"outcome", "failed"}});
  text.HistogramOf("muster_coordinator_resize_pause_seconds",
                   "Time of a resize in which no step ran.", counters.resize_pause);
  text.CounterOf("muster_coordinator_resize_kv_bytes_total",
                 "Bytes of KV blocks that resizes moved, over all ranks.",
                 static_cast<double>(counters.kv_bytes_moved.value()));
  text.Gauge("muster_coordinator_rendezvous_waiting", "Calls of ranks that wait for other ranks.",
             static_cast<double>(coordinator.rendezvous().waiting()));
}

}  // namespace

void AddFleetMetrics(Coordinator& coordinator, absl::Duration lease, MetricsText& text) {
  const FleetCounters& counters = coordinator.fleet().events().counters();
  AddWorkers(coordinator.fleet().ListWorkers(), lease, text);
  AddReplicas(coordinator.fleet().GetTopology(), text);
  AddEvents(counters, text);
  AddResizes(coordinator, counters, text);
}

}  // namespace muster
