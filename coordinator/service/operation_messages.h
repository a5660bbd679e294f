// Operations and plans of the coordinator as messages of muster.v1, and what they are asked with.
#ifndef MUSTER_COORDINATOR_SERVICE_OPERATION_MESSAGES_H_
#define MUSTER_COORDINATOR_SERVICE_OPERATION_MESSAGES_H_

#include "absl/status/statusor.h"
#include "coordinator/change_plan.h"
#include "coordinator/operations.h"
#include "proto/muster/v1/fleet.pb.h"

namespace muster {

v1::Operation ToWire(const Operation& operation);
v1::ReplicaChange ToWire(const ReplicaChange& change);

// All of these: INVALID_ARGUMENT names the field, its value and the limit. A request id has 1 to 64
// bytes, a timeout is more than 0 and at most an hour, 10 minutes where there is none.

absl::StatusOr<OperationRequest> RequestFromWire(const v1::ScaleContextParallelRequest& wire);
// At most 32 buckets, each a power of two up to 512, largest first; at most 4,096 names to drop.
absl::StatusOr<OperationRequest> RequestFromWire(const v1::ApplyTopologyRequest& wire);
absl::StatusOr<OperationRequest> RequestFromWire(const v1::DrainWorkerRequest& wire);
// What ApplyTopology would be asked, under no id.
absl::StatusOr<OperationRequest> RequestFromWire(const v1::PlanTopologyRequest& wire);
// Each size 0, for one that stays, to 1,024.
absl::StatusOr<ParallelConfig> SizesFromWire(const v1::ParallelConfig& wire);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_OPERATION_MESSAGES_H_
