#include "coordinator/service/fleet_messages.h"

#include "base/wire_status.h"

namespace muster {
namespace {

v1::RankLedger ToWireLedger(const RankLedger& ledger) {
  v1::RankLedger wire;
  wire.set_rank(static_cast<uint32_t>(ledger.rank.value()));
  ToWire(ledger.entries, wire.mutable_entries());
  wire.set_kv_blocks(ledger.kv_blocks);
  wire.set_block_tokens(static_cast<uint32_t>(ledger.block_tokens));
  for (const int rows : ledger.buckets) wire.add_buckets(static_cast<uint32_t>(rows));
  return wire;
}

v1::RankFootprint ToWireFootprint(const RankFootprint& footprint) {
  v1::RankFootprint wire;
  wire.set_rank(static_cast<uint32_t>(footprint.rank.value()));
  wire.set_weight_bytes(footprint.weight_bytes);
  wire.set_kv_block_bytes(footprint.kv_block_bytes);
  return wire;
}

}  // namespace

v1::ReplicaStatus ToWire(const ReplicaStatus& replica) {
  v1::ReplicaStatus wire;
  wire.set_replica(static_cast<uint32_t>(replica.replica.value()));
  wire.set_state(static_cast<v1::ReplicaState>(replica.state));
  if (replica.topology.has_value()) *wire.mutable_topology() = ToWire(*replica.topology);
  if (!replica.failure.ok()) SetFailure(replica.failure, wire.mutable_failure());
  for (const RankLedger& ledger : replica.ledgers) *wire.add_ledgers() = ToWireLedger(ledger);
  for (const PhaseTime& phase : replica.phases) {
    v1::PhaseTime* time = wire.add_phases();
    time->set_phase(phase.phase);
    *time->mutable_duration() = ToWire(phase.duration);
  }
  if (replica.state == ReplicaState::kServing) {
    *wire.mutable_serving_since() = ToWire(replica.serving_since);
  }
  return wire;
}

v1::WorkerStatus ToWire(const WorkerStatus& worker) {
  v1::WorkerStatus wire;
  wire.set_worker_id(worker.info.worker_id);
  wire.set_domain(worker.info.domain);
  wire.set_incarnation(worker.info.incarnation.value());
  wire.set_address(worker.info.address);
  *wire.mutable_device() = ToWire(worker.info.device);
  wire.set_build(worker.info.build);
  *wire.mutable_model() = ToWire(worker.info.model);
  wire.set_state(ToWire(worker.state));
  if (worker.replica.has_value()) {
    wire.set_replica(static_cast<uint32_t>(worker.replica->value()));
  }
  if (worker.rank.has_value()) wire.set_rank(static_cast<uint32_t>(worker.rank->value()));
  wire.set_epoch(worker.epoch.value());
  *wire.mutable_progress() = ToWire(worker.report.progress);
  *wire.mutable_heartbeat_age() = ToWire(worker.heartbeat_age);
  wire.set_step(worker.report.step.value());
  wire.set_kv_blocks_used(worker.report.kv_blocks_used);
  wire.set_kv_blocks_total(worker.report.kv_blocks_total);
  wire.set_tokens(worker.report.tokens);
  wire.set_queued_requests(static_cast<uint32_t>(worker.report.queued_requests));
  wire.set_drained(worker.drained);
  return wire;
}

v1::PlanTopologyResponse ToWire(const Plan& plan) {
  v1::PlanTopologyResponse wire;
  for (const Topology& topology : plan.topologies) *wire.add_topologies() = ToWire(topology);
  for (const RankFootprint& footprint : plan.footprints) {
    *wire.add_footprints() = ToWireFootprint(footprint);
  }
  return wire;
}

v1::WatchEventsResponse ToWire(const Event& event) {
  v1::WatchEventsResponse wire;
  wire.set_sequence(event.sequence);
  *wire.mutable_time() = ToWire(event.time);
  wire.set_kind(static_cast<v1::EventKind>(event.kind));
  if (event.replica.has_value()) wire.set_replica(static_cast<uint32_t>(event.replica->value()));
  wire.set_epoch(event.epoch.value());
  if (event.rank.has_value()) wire.set_rank(static_cast<uint32_t>(event.rank->value()));
  wire.set_worker_id(event.worker_id);
  wire.set_phase(event.phase);
  wire.set_message(event.message);
  wire.set_operation_id(event.operation_id);
  return wire;
}

}  // namespace muster
