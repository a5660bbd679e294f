#include "coordinator/service/fleet_service.h"

#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"
#include "coordinator/service/fleet_messages.h"
#include "coordinator/service/operation_messages.h"
#include "coordinator/service/operation_stream.h"
#include "coordinator/service/watch_stream.h"

namespace muster {
namespace {

// Says nothing twice in a row.
class TopologySource {
 public:
  explicit TopologySource(const Fleet& fleet) : fleet_(fleet) {}

  WatchStep operator()(v1::WatchTopologyResponse* response) {
    const FleetTopology topology = fleet_.GetTopology();
    FillTopology(topology, response);
    std::string written = response->SerializeAsString();
    if (written == last_) return WatchStep::kNothingYet;
    last_ = std::move(written);
    return WatchStep::kMessage;
  }

 private:
  const Fleet& fleet_;
  std::string last_;
};

class EventSource {
 public:
  EventSource(EventLog& events, const v1::WatchEventsRequest& request)
      : events_(events), next_(request.from_sequence()), follow_(!request.no_follow()) {}

  WatchStep operator()(v1::WatchEventsResponse* response) {
    const std::vector<Event> events = events_.Read(next_, 1);
    if (events.empty()) return follow_ ? WatchStep::kNothingYet : WatchStep::kEnd;
    next_ = events.front().sequence + 1;
    *response = ToWire(events.front());
    return WatchStep::kMessage;
  }

 private:
  EventLog& events_;
  uint64_t next_;
  const bool follow_;
};

}  // namespace

grpc::ServerUnaryReactor* FleetService::GetTopology(grpc::CallbackServerContext* context,
                                                    const v1::GetTopologyRequest* /*request*/,
                                                    v1::GetTopologyResponse* response) {
  FillTopology(fleet_.GetTopology(), response);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchTopologyResponse>* FleetService::WatchTopology(
    grpc::CallbackServerContext* /*context*/, const v1::WatchTopologyRequest* /*request*/) {
  return new WatchStream<v1::WatchTopologyResponse>(TopologySource(fleet_),
                                                    fleet_.topology_changes(), stopping_);
}

grpc::ServerUnaryReactor* FleetService::PlanTopology(grpc::CallbackServerContext* context,
                                                     const v1::PlanTopologyRequest* request,
                                                     v1::PlanTopologyResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<OperationRequest> operation = RequestFromWire(*request);
  if (!operation.ok()) {
    reactor->Finish(ToGrpc(operation.status()));
    return reactor;
  }
  // What serves is asked first: its refusal is the one of the operation itself.
  fleet_.PlanChanges(*operation,
                     [this, reactor, response, sizes = operation->sizes](const Changes& changes) {
                       reactor->Finish(ToGrpc(FillPlan(sizes, changes, response)));
                     });
  return reactor;
}

absl::Status FleetService::FillPlan(const ParallelConfig& sizes, const Changes& changes,
                                    v1::PlanTopologyResponse* response) const {
  MUSTER_RETURN_IF_ERROR(changes.status());
  const absl::StatusOr<Plan> plan = fleet_.PlanTopology(sizes);
  // Replicas that wait for workers do not hinder what those that serve are asked for.
  if (!plan.ok() && !fleet_.Serves()) return plan.status();
  if (plan.ok()) *response = ToWire(*plan);
  for (const ReplicaChange& change : *changes) *response->add_changes() = ToWire(change);
  return absl::OkStatus();
}

grpc::ServerWriteReactor<v1::ScaleContextParallelResponse>* FleetService::ScaleContextParallel(
    grpc::CallbackServerContext* /*context*/, const v1::ScaleContextParallelRequest* request) {
  return StreamOperation<v1::ScaleContextParallelResponse>(fleet_, stopping_,
                                                           RequestFromWire(*request));
}

grpc::ServerWriteReactor<v1::ApplyTopologyResponse>* FleetService::ApplyTopology(
    grpc::CallbackServerContext* /*context*/, const v1::ApplyTopologyRequest* request) {
  return StreamOperation<v1::ApplyTopologyResponse>(fleet_, stopping_, RequestFromWire(*request));
}

grpc::ServerWriteReactor<v1::DrainWorkerResponse>* FleetService::DrainWorker(
    grpc::CallbackServerContext* /*context*/, const v1::DrainWorkerRequest* request) {
  return StreamOperation<v1::DrainWorkerResponse>(fleet_, stopping_, RequestFromWire(*request));
}

grpc::ServerUnaryReactor* FleetService::CancelOperation(grpc::CallbackServerContext* context,
                                                        const v1::CancelOperationRequest* request,
                                                        v1::CancelOperationResponse* response) {
  const absl::StatusOr<Operation> operation = fleet_.CancelOperation(request->operation_id());
  if (operation.ok()) *response->mutable_operation() = ToWire(*operation);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(operation.status()));
  return reactor;
}

grpc::ServerUnaryReactor* FleetService::ListOperations(grpc::CallbackServerContext* context,
                                                       const v1::ListOperationsRequest* /*request*/,
                                                       v1::ListOperationsResponse* response) {
  for (const Operation& operation : fleet_.ListOperations()) {
    *response->add_operations() = ToWire(operation);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* FleetService::ListWorkers(grpc::CallbackServerContext* context,
                                                    const v1::ListWorkersRequest* /*request*/,
                                                    v1::ListWorkersResponse* response) {
  for (const WorkerStatus& worker : fleet_.ListWorkers()) *response->add_workers() = ToWire(worker);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchEventsResponse>* FleetService::WatchEvents(
    grpc::CallbackServerContext* /*context*/, const v1::WatchEventsRequest* request) {
  EventLog& events = fleet_.events();
  return new WatchStream<v1::WatchEventsResponse>(EventSource(events, *request), events.changes(),
                                                  stopping_);
}

}  // namespace muster
