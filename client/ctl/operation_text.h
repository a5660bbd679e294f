// What commands say of operations, each on a line.
#ifndef MUSTER_CLIENT_CTL_OPERATION_TEXT_H_
#define MUSTER_CLIENT_CTL_OPERATION_TEXT_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/muster/v1/fleet.pb.h"

namespace muster::ctl {

// "cp 2 → 4", "tp 1 → 3, cp 2 → 1"; "same sizes" where none changes.
std::string ShapeChange(const v1::ParallelConfig& from, const v1::ParallelConfig& to);

// What a ReplicaResize or a ReplicaChange does: that, and what it notes beside it: "worker w1
// drained, cp 2 → 1", "buckets 32 16 to 8 1".
std::string ChangeText(const v1::ReplicaResize& resize);
std::string ChangeText(const v1::ReplicaChange& change);

// "0-3 5", of ascending ranks; runs of three and more are joined.
std::string RankList(const std::vector<uint32_t>& ranks);

// Of a replica whose change has taken effect: "cp 2 → 4: prepare 1.1 s, pause 4 ms, 21 KV blocks
// moved (7.4 MiB, 6.1 GiB/s), 20 kept, 3 sequences".
std::string ResizeSummary(const v1::ReplicaResize& resize);

// Of an operation that took effect without a change of a replica that serves: "replicas 1 to 2:
// done in 1.1 s".
std::string DoneLine(const v1::Operation& operation);

// How far a replica's change has come: "prepare load", "activate", "waits for its turn".
std::string StageText(const v1::ReplicaResize& resize);

// The phase of which the most is before a rank: "load", "warmup/exchange"; empty when none is
// known.
std::string SlowestPhase(const v1::ReplicaResize& resize);

// Of one that runs: "scale-cp 'cp 2 to 4' runs for 1.4 s: replica 0 prepare load (ID)".
std::string RunningLine(const v1::Operation& operation, absl::Time now);

// "last resize: cp 1 → 2, 41 min ago, pause 96 ms", of the last that took effect; nothing where the
// coordinator knows of none.
std::optional<std::string> LastResize(const v1::ListOperationsResponse& operations, absl::Time now);

// The one that runs; null where none does. `operations` outlives it.
const v1::Operation* RunningOperation(const v1::ListOperationsResponse& operations);

// The command that begins such an operation: "scale-cp".
std::string CommandOf(v1::OperationKind kind);

// "41 min ago", in the largest unit alone.
std::string Ago(absl::Duration age);

absl::Duration DurationOf(const google::protobuf::Duration& duration);
absl::Time TimeOf(const google::protobuf::Timestamp& time);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_OPERATION_TEXT_H_
