#ifndef MUSTER_COORDINATOR_SERVICE_FLEET_SERVICE_H_
#define MUSTER_COORDINATOR_SERVICE_FLEET_SERVICE_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/change_signal.h"
#include "coordinator/fleet.h"
#include "proto/muster/v1/fleet.grpc.pb.h"

namespace muster {

// muster.v1.Fleet. A watcher of the topology that reads slowly misses states in between, never the
// last; one of events misses those that the log has dropped meanwhile. Thread-safe.
class FleetService : public v1::Fleet::CallbackService {
 public:
  // `fleet` outlives this and every call.
  explicit FleetService(Fleet& fleet) : fleet_(fleet) {}

  // Ends the streams there are, UNAVAILABLE.
  void EndStreams() { stopping_.Notify(); }

  grpc::ServerUnaryReactor* GetTopology(grpc::CallbackServerContext* context,
                                        const v1::GetTopologyRequest* request,
                                        v1::GetTopologyResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchTopologyResponse>* WatchTopology(
      grpc::CallbackServerContext* context, const v1::WatchTopologyRequest* request) override;
  grpc::ServerUnaryReactor* PlanTopology(grpc::CallbackServerContext* context,
                                         const v1::PlanTopologyRequest* request,
                                         v1::PlanTopologyResponse* response) override;
  grpc::ServerWriteReactor<v1::ScaleContextParallelResponse>* ScaleContextParallel(
      grpc::CallbackServerContext* context,
      const v1::ScaleContextParallelRequest* request) override;
  grpc::ServerWriteReactor<v1::ApplyTopologyResponse>* ApplyTopology(
      grpc::CallbackServerContext* context, const v1::ApplyTopologyRequest* request) override;
  grpc::ServerWriteReactor<v1::DrainWorkerResponse>* DrainWorker(
      grpc::CallbackServerContext* context, const v1::DrainWorkerRequest* request) override;
  grpc::ServerUnaryReactor* CancelOperation(grpc::CallbackServerContext* context,
                                            const v1::CancelOperationRequest* request,
                                            v1::CancelOperationResponse* response) override;
  grpc::ServerUnaryReactor* ListOperations(grpc::CallbackServerContext* context,
                                           const v1::ListOperationsRequest* request,
                                           v1::ListOperationsResponse* response) override;
  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context,
                                        const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchEventsResponse>* WatchEvents(
      grpc::CallbackServerContext* context, const v1::WatchEventsRequest* request) override;

 private:
  using Changes = absl::StatusOr<std::vector<ReplicaChange>>;

  // What the sizes look like, and what it takes to get there.
  absl::Status FillPlan(const ParallelConfig& sizes, const Changes& changes,
                        v1::PlanTopologyResponse* response) const;

  Fleet& fleet_;
  ChangeSignal stopping_;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_FLEET_SERVICE_H_
