// The values of base/topology.h as messages of muster.v1, and back; what workers report is in
// base/wire_report.h. What comes from the wire is checked: sizes bounded, strings short, ranks in
// order, groups equal to those that the sizes imply.
#ifndef MUSTER_BASE_WIRE_TOPOLOGY_H_
#define MUSTER_BASE_WIRE_TOPOLOGY_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/topology.h"
#include "base/wire_report.h"
#include "base/wire_time.h"
#include "proto/muster/v1/types.pb.h"

namespace muster {

v1::ParallelConfig ToWire(const ParallelConfig& config);
v1::Topology ToWire(const Topology& topology);
v1::ModelSpec ToWire(const ModelSpec& model);

// All of these: INVALID_ARGUMENT names the field, its value and the limit.

// Every size 1 to 1,024, and at most 1,048,576 ranks in all.
absl::StatusOr<ParallelConfig> FromWire(const v1::ParallelConfig& wire);
// `ranks` holds exactly the ranks of `config` in order, each with a worker of its own, and `groups`
// those that DeriveGroups gives, ids included.
absl::StatusOr<Topology> FromWire(const v1::Topology& wire);
absl::StatusOr<ModelSpec> FromWire(const v1::ModelSpec& wire);

// Stable name of a worker: 1 to 128 bytes of [A-Za-z0-9._-].
absl::Status CheckWorkerId(absl::string_view worker_id);

}  // namespace muster

#endif  // MUSTER_BASE_WIRE_TOPOLOGY_H_
