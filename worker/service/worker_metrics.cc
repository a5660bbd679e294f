#include "worker/service/worker_metrics.h"

#include <map>

#include "absl/strings/str_cat.h"

namespace muster {
namespace {

std::string Text(uint64_t number) { return absl::StrCat(number); }
std::string Text(int32_t number) { return absl::StrCat(number); }

void AddIdentity(const WorkerMetrics& worker, MetricsText& text) {
  text.Gauges("muster_worker_info", "What this worker is; always 1.");
  text.Add(1, {{"worker_id", worker.worker_id},
               {"device", worker.device.kind},
               {"device_name", worker.device.name},
               {"model", worker.model.name},
               {"dtype", worker.model.dtype}});
  text.Gauge("muster_worker_ready", "1 while /readyz answers 200.", worker.ready);
}

void AddSteps(const EngineCounters& engine, MetricsText& text) {
  text.Counters("muster_worker_steps_total", "Steps that ran rows on this rank, by how.");
  text.Add(static_cast<double>(engine.steps_graph.value()), {{"mode", "graph"}});
  text.Add(static_cast<double>(engine.steps_eager.value()), {{"mode", "eager"}});
  text.Counters("muster_worker_graph_steps_total", "Steps that replayed a graph, by its rows.");
  for (size_t size = 0; size < EngineCounters::kBucketSizes; ++size) {
    const uint64_t steps = engine.graph_steps[size].value();
    if (steps > 0) text.Add(static_cast<double>(steps), {{"rows", Text(uint64_t{1} << size)}});
  }
  text.Counters("muster_worker_tokens_total",
                "Rows computed for sequences: prefill where a step had several of one sequence.");
  text.Add(static_cast<double>(engine.tokens_prefill.value()), {{"kind", "prefill"}});
  text.Add(static_cast<double>(engine.tokens_decode.value()), {{"kind", "decode"}});
  text.CounterOf("muster_worker_padding_rows_total", "Rows computed beside those, as padding.",
                 static_cast<double>(engine.padding_rows.value()));
  text.Histograms("muster_worker_step_rows", "Rows of a step, without padding.");
  text.Add(engine.rows);
  text.HistogramOf("muster_worker_step_device_seconds",
                   "Time of a step on this rank, from its first enqueue to its completion.",
                   engine.device_time);
}

void AddRequests(const WorkerMetrics& worker, MetricsText& text) {
  const EngineCounters& engine = worker.engine;
  text.HistogramOf("muster_worker_step_relay_seconds",
                   "On a leader: time until a step's followers could read it.", engine.relay_time);
  text.CounterOf("muster_worker_requests_total", "On a leader: requests that ran.",
                 static_cast<double>(engine.requests.value()));
  text.HistogramOf("muster_worker_request_queue_seconds",
                   "On a leader: time that a request waited for its first step.",
                   engine.queue_time);
  text.HistogramOf("muster_worker_request_seconds",
                   "On a leader: time from a request's arrival to its answer.",
                   engine.request_time);
  text.CounterOf("muster_worker_expired_clients_total",
                 "On a leader: clients that lost their sequences by silence.",
                 static_cast<double>(engine.expired_clients.value()));
  int in_flight = 0, clients = 0, sequences = 0, most = 0;
  for (const EpochStatus& epoch : worker.epochs) {
    if (!epoch.capacity.has_value()) continue;
    in_flight += epoch.requests_in_flight;
    clients += epoch.clients;
    sequences += epoch.capacity->sequences;
    most += epoch.capacity->max_sequences;
  }
  text.Gauge("muster_worker_requests_in_flight", "On a leader: waiting, and the one that runs.",
             in_flight);
  text.Gauge("muster_worker_clients", "On a leader: clients that have a lease.", clients);
  text.Gauge("muster_worker_sequences", "On a leader: sequences held.", sequences);
  text.Gauge("muster_worker_sequences_capacity", "On a leader: sequences that it can hold.", most);
}

void AddEpochs(const WorkerMetrics& worker, MetricsText& text) {
  text.Gauges("muster_worker_epoch", "Number of each epoch that this worker holds.");
  for (const EpochStatus& epoch : worker.epochs) {
    text.Add(static_cast<double>(epoch.report.epoch.value()),
             {{"replica", Text(epoch.report.replica.value())},
              {"rank", Text(epoch.rank.value())},
              {"state", WorkerStateName(epoch.report.state)}});
  }
  uint64_t used = 0, capacity = 0;
  std::map<std::string, uint64_t> bytes;
  for (const EpochStatus& epoch : worker.epochs) {
    for (const LedgerEntry& entry : epoch.ledger) bytes[entry.tag] += entry.bytes;
    const WorkerState state = epoch.report.state;
    if (state != WorkerState::kServing && state != WorkerState::kDraining) continue;
    used += epoch.report.kv_blocks_used;
    capacity += epoch.report.kv_blocks_total;
  }
  text.Gauge("muster_worker_kv_blocks_used", "KV blocks of this rank that sequences hold.",
             static_cast<double>(used));
  text.Gauge("muster_worker_kv_blocks_capacity", "KV blocks of this rank.",
             static_cast<double>(capacity));
  text.Gauges("muster_worker_memory_bytes", "Bytes held for epochs, by what for.");
  for (const auto& [tag, held] : bytes) text.Add(static_cast<double>(held), {{"tag", tag}});
}

void AddCollectives(const WorkerMetrics& worker, MetricsText& text) {
  text.Counters("muster_worker_collectives_total", "Collectives that steps ran, by operation.");
  for (size_t op = 1; op < CollectiveTally::kOps; ++op) {
    text.Add(static_cast<double>(worker.engine.collectives[op].value()),
             {{"operation", CollectiveOpName(static_cast<CollectiveOp>(op))}});
  }
  text.Counters("muster_worker_collective_bytes_total",
                "Bytes that this rank brought to them, by operation.");
  for (size_t op = 1; op < CollectiveTally::kOps; ++op) {
    text.Add(static_cast<double>(worker.engine.collective_bytes[op].value()),
             {{"operation", CollectiveOpName(static_cast<CollectiveOp>(op))}});
  }
  if (worker.collective_wait.has_value()) {
    text.CounterOf("muster_worker_collective_wait_seconds_total",
                   "Time that this rank waited for its peers within collectives. CPU only.",
                   absl::ToDoubleSeconds(*worker.collective_wait));
  }
  text.Gauges("muster_worker_fused",
              "1 where all-reduce, residual and norm are one operation, by group; else the reason "
              "why not.");
  for (const EpochStatus& epoch : worker.epochs) {
    for (const FusionReport& group : epoch.fusion) {
      text.Add(group.fused, {{"replica", Text(epoch.report.replica.value())},
                             {"epoch", Text(epoch.report.epoch.value())},
                             {"group", GroupKindName(group.kind)},
                             {"reason", group.why_not}});
    }
  }
}

void AddChanges(const WorkerMetrics& worker, MetricsText& text) {
  text.HistogramOf("muster_worker_rendezvous_seconds",
                   "Time that this rank waited for others by way of the coordinator.",
                   worker.rendezvous.waits);
  text.CounterOf("muster_worker_rendezvous_failures_total", "Of those, that did not come about.",
                 static_cast<double>(worker.rendezvous.failures.value()));
  const EngineCounters& engine = worker.engine;
  text.HistogramOf("muster_worker_resize_pause_seconds",
                   "On a leader: time of a resize in which no step ran.", engine.resize_pause);
  text.CounterOf("muster_worker_resize_kv_bytes_total",
                 "On a leader: bytes of KV blocks that resizes moved, over all ranks.",
                 static_cast<double>(engine.kv_bytes_moved.value()));
  text.CounterOf("muster_worker_resize_kv_blocks_total",
                 "On a leader: KV blocks that resizes moved, over all cp ranks.",
                 static_cast<double>(engine.kv_blocks_moved.value()));
  text.CounterOf("muster_worker_resize_rebuilt_tokens_total",
                 "On a leader: tokens whose KV was computed again.",
                 static_cast<double>(engine.tokens_rebuilt.value()));
  text.CounterOf("muster_worker_resize_dropped_sequences_total",
                 "On a leader: sequences that a resize was told to drop.",
                 static_cast<double>(engine.sequences_dropped.value()));
}

}  // namespace

void AddWorkerMetrics(const WorkerMetrics& worker, MetricsText& text) {
  AddIdentity(worker, text);
  AddSteps(worker.engine, text);
  AddRequests(worker, text);
  AddEpochs(worker, text);
  AddCollectives(worker, text);
  AddChanges(worker, text);
}

}  // namespace muster
