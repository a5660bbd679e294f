// The file of `musterctl apply`: the topology that is wanted, in YAML or in JSON.
#ifndef MUSTER_CLIENT_CTL_TOPOLOGY_FILE_H_
#define MUSTER_CLIENT_CTL_TOPOLOGY_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "proto/muster/v1/fleet.pb.h"

namespace muster::ctl {

// One mapping of
//   tp, cp, replicas   whole numbers, 1 to 1,024
//   buckets            a list of 1 to 32 powers of two, largest first
//   drop               a list of "CLIENT/SEQUENCE", or of "*"
//   timeout            a time such as 90s or 10m, at most an hour
// None of them is required; a size that is left out stays as it is. The request id is not set.
// INVALID_ARGUMENT, one line: neither YAML nor JSON, a key that is none of these or stands there
// twice, a value of another type or out of its range; says the line, the key and what it can be.
absl::StatusOr<v1::ApplyTopologyRequest> ParseTopologyFile(const std::string& text);

// "90s", "10m": more than 0 and at most an hour. INVALID_ARGUMENT says what it can be.
absl::StatusOr<google::protobuf::Duration> ParseTimeout(const std::string& text);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_TOPOLOGY_FILE_H_
