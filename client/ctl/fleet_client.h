// The coordinator's Fleet service, and the Inference service of a leader, as plain calls.
#ifndef MUSTER_CLIENT_CTL_FLEET_CLIENT_H_
#define MUSTER_CLIENT_CTL_FLEET_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/ctl/fleet_address.h"
#include "proto/muster/v1/fleet.grpc.pb.h"
#include "proto/muster/v1/inference.grpc.pb.h"
#include "proto/muster/v1/worker_control.grpc.pb.h"

namespace muster::ctl {

// Calls of one coordinator. Every call has a deadline. Errors are those of the service;
// UNAVAILABLE says which address does not answer and what to do. Thread-safe.
class FleetClient {
 public:
  explicit FleetClient(CoordinatorAddress coordinator, absl::Duration timeout = absl::Seconds(5));

  absl::StatusOr<v1::GetTopologyResponse> GetTopology() const;
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers() const;
  absl::StatusOr<v1::PlanTopologyResponse> PlanTopology(
      const v1::PlanTopologyRequest& request) const;
  absl::StatusOr<v1::ListOperationsResponse> ListOperations() const;
  absl::StatusOr<v1::Operation> CancelOperation(const std::string& id) const;

  // These begin an operation, or join the one of the same request id, and hand on its states up to
  // the last, be it a failure. They have no deadline: `context`'s TryCancel(), called by any
  // thread, leaves, and the operation goes on.
  using UseOperation = std::function<void(const v1::Operation&)>;
  absl::Status Scale(const v1::ScaleContextParallelRequest& request, grpc::ClientContext& context,
                     const UseOperation& use) const;
  absl::Status Apply(const v1::ApplyTopologyRequest& request, grpc::ClientContext& context,
                     const UseOperation& use) const;
  absl::Status Drain(const v1::DrainWorkerRequest& request, grpc::ClientContext& context,
                     const UseOperation& use) const;

  // The events that exist now, from sequence number `from` on.
  absl::StatusOr<std::vector<v1::WatchEventsResponse>> Events(uint64_t from) const;
  // Hands on all events as they come, until the stream breaks; never returns OK.
  absl::Status FollowEvents(const std::function<void(const v1::WatchEventsResponse&)>& use) const;

  const std::string& address() const { return coordinator_.address; }

 private:
  absl::Status Explain(const grpc::Status& status) const;
  std::unique_ptr<grpc::ClientContext> Context() const;

  const CoordinatorAddress coordinator_;
  const absl::Duration timeout_;
  const std::unique_ptr<v1::Fleet::Stub> stub_;
};

// Calls of one replica's leader. Thread-safe.
class InferenceClient {
 public:
  explicit InferenceClient(WorkerAddress leader, absl::Duration timeout = absl::Seconds(60));

  absl::StatusOr<v1::GetModelResponse> GetModel() const;
  absl::StatusOr<v1::ForwardResponse> Forward(const v1::ForwardRequest& request) const;
  absl::Status FreeSequences(const v1::FreeSequencesRequest& request) const;

 private:
  absl::Status Explain(const grpc::Status& status) const;
  std::unique_ptr<grpc::ClientContext> Context() const;

  const WorkerAddress leader_;
  const absl::Duration timeout_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
};

// What the device of a worker can do, measured now. Errors: as of WorkerControl.MeasureDevice.
absl::StatusOr<v1::MeasureDeviceResponse> MeasureDevice(const WorkerAddress& worker,
                                                        absl::Duration timeout);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_FLEET_CLIENT_H_
