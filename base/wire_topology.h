// The values of base/topology.h as messages of muster.v1, and back. What comes from the wire is
// checked: sizes bounded, strings short, ranks in order, groups equal to those that the sizes
// imply.
#ifndef MUSTER_BASE_WIRE_TOPOLOGY_H_
#define MUSTER_BASE_WIRE_TOPOLOGY_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/topology.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "google/protobuf/timestamp.pb.h"
#include "proto/muster/v1/membership.pb.h"
#include "proto/muster/v1/types.pb.h"

namespace muster {

v1::ParallelConfig ToWire(const ParallelConfig& config);
v1::Topology ToWire(const Topology& topology);
v1::ModelSpec ToWire(const ModelSpec& model);
v1::DeviceReport ToWire(const DeviceReport& device);
v1::Progress ToWire(const Progress& progress);
v1::LedgerEntry ToWire(const LedgerEntry& entry);
v1::EpochReport ToWire(const EpochReport& report);
v1::WorkerState ToWire(WorkerState state);
// Seconds and nanoseconds; infinite ones become the longest that the messages hold.
google::protobuf::Duration ToWire(absl::Duration duration);
google::protobuf::Timestamp ToWire(absl::Time time);
void ToWire(const std::vector<LedgerEntry>& entries,
            google::protobuf::RepeatedPtrField<v1::LedgerEntry>* wire);

// All of these: INVALID_ARGUMENT names the field, its value and the limit.

// Every size 1 to 1,024, and at most 1,048,576 ranks in all.
absl::StatusOr<ParallelConfig> FromWire(const v1::ParallelConfig& wire);
// `ranks` holds exactly the ranks of `config` in order, each with a worker of its own, and `groups`
// those that DeriveGroups gives, ids included.
absl::StatusOr<Topology> FromWire(const v1::Topology& wire);
absl::StatusOr<ModelSpec> FromWire(const v1::ModelSpec& wire);
absl::StatusOr<DeviceReport> FromWire(const v1::DeviceReport& wire);
absl::StatusOr<Progress> FromWire(const v1::Progress& wire);
absl::StatusOr<EpochReport> FromWire(const v1::EpochReport& wire);
absl::StatusOr<WorkerState> FromWire(v1::WorkerState wire);
// At most 4,096 entries.
absl::StatusOr<std::vector<LedgerEntry>> FromWire(
    const google::protobuf::RepeatedPtrField<v1::LedgerEntry>& wire);
// More than 0, at most `longest`.
absl::StatusOr<absl::Duration> TimeoutFromWire(const google::protobuf::Duration& wire,
                                               absl::Duration longest);
// Not negative.
absl::Duration FromWire(const google::protobuf::Duration& wire);

// Stable name of a worker: 1 to 128 bytes of [A-Za-z0-9._-].
absl::Status CheckWorkerId(absl::string_view worker_id);

}  // namespace muster

#endif  // MUSTER_BASE_WIRE_TOPOLOGY_H_
