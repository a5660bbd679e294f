// What a worker's /metrics shows.
#ifndef MUSTER_WORKER_SERVICE_WORKER_METRICS_H_
#define MUSTER_WORKER_SERVICE_WORKER_METRICS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/metrics/metrics_text.h"
#include "base/topology.h"
#include "worker/engine/engine_counters.h"
#include "worker/engine/held_epoch.h"
#include "worker/service/grpc_rendezvous.h"

namespace muster {

// What is so at the moment of a scrape; the references outlive the call.
struct WorkerMetrics {
  const EngineCounters& engine;
  const RendezvousCounters& rendezvous;
  const std::vector<EpochStatus>& epochs;
  const DeviceReport& device;
  const ModelSpec& model;
  std::string worker_id;
  bool ready = false;
  std::optional<absl::Duration> collective_wait;  // as CollectiveBackend::waited()
};

// docs/metrics.md has every name.
void AddWorkerMetrics(const WorkerMetrics& worker, MetricsText& text);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_WORKER_METRICS_H_
