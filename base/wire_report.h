// What workers say of themselves and of their epochs as messages of muster.v1, and back.
#ifndef MUSTER_BASE_WIRE_REPORT_H_
#define MUSTER_BASE_WIRE_REPORT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "base/topology.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "proto/muster/v1/membership.pb.h"
#include "proto/muster/v1/types.pb.h"

namespace muster {

v1::DeviceReport ToWire(const DeviceReport& device);
v1::Progress ToWire(const Progress& progress);
v1::LedgerEntry ToWire(const LedgerEntry& entry);
v1::EpochReport ToWire(const EpochReport& report);
v1::ClientExpiry ToWire(const ExpiryReport& expiry);
v1::WorkerState ToWire(WorkerState state);
void ToWire(const std::vector<LedgerEntry>& entries,
            google::protobuf::RepeatedPtrField<v1::LedgerEntry>* wire);

// All of these: INVALID_ARGUMENT names the field, its value and the limit.

absl::StatusOr<DeviceReport> FromWire(const v1::DeviceReport& wire);
absl::StatusOr<Progress> FromWire(const v1::Progress& wire);
absl::StatusOr<EpochReport> FromWire(const v1::EpochReport& wire);
// A lease of at most a year.
absl::StatusOr<ExpiryReport> FromWire(const v1::ClientExpiry& wire);
absl::StatusOr<WorkerState> FromWire(v1::WorkerState wire);
// At most 4,096 entries.
absl::StatusOr<std::vector<LedgerEntry>> FromWire(
    const google::protobuf::RepeatedPtrField<v1::LedgerEntry>& wire);

}  // namespace muster

#endif  // MUSTER_BASE_WIRE_REPORT_H_
