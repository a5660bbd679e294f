// What workers say of themselves, as it comes from the wire. INVALID_ARGUMENT names the field, its
// value and the limit.
#ifndef MUSTER_COORDINATOR_SERVICE_WORKER_INFO_H_
#define MUSTER_COORDINATOR_SERVICE_WORKER_INFO_H_

#include <vector>

#include "absl/status/statusor.h"
#include "base/topology.h"
#include "coordinator/membership.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "proto/muster/v1/membership.pb.h"

namespace muster {

absl::StatusOr<WorkerInfo> WorkerInfoFromWire(const v1::Enlistment& wire);

// Both: at most 64.
absl::StatusOr<std::vector<EpochReport>> ReportsFromWire(
    const google::protobuf::RepeatedPtrField<v1::EpochReport>& wire);
absl::StatusOr<std::vector<ExpiryReport>> ExpiriesFromWire(
    const google::protobuf::RepeatedPtrField<v1::ClientExpiry>& wire);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_WORKER_INFO_H_
