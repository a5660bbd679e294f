// Messages of the fleet as JSON for programs: every number with its unit in its name.
#ifndef MUSTER_BASE_WIRE_JSON_H_
#define MUSTER_BASE_WIRE_JSON_H_

#include <nlohmann/json.hpp>
#include <string>

#include "proto/muster/v1/fleet.pb.h"

namespace muster {

using Json = nlohmann::ordered_json;

// {"tp", "cp", "pp", "replicas"}
Json ConfigJson(const v1::ParallelConfig& config);
// {"replica", "epoch", "term", "tp", ..., "ranks": [{"rank", "worker_id", ...}], "groups": [...]}
Json TopologyJson(const v1::Topology& topology);
Json ModelJson(const v1::ModelSpec& model);
Json DeviceJson(const v1::DeviceReport& device);
Json ReplicaJson(const v1::ReplicaStatus& replica);
Json WorkerJson(const v1::WorkerStatus& worker);
Json EventJson(const v1::WatchEventsResponse& event);
Json PlanJson(const v1::PlanTopologyResponse& plan);
// {"code", "message", "detail": {"reason", ...}}
Json FailureJson(const v1::Failure& failure);
// {"phase", "done", "total", "unit"}
Json ProgressJson(const v1::Progress& progress);

// Milliseconds, as a number.
double Milliseconds(const google::protobuf::Duration& duration);

// The names of enum values, without their prefix: "SERVING", "STAGE", "WORKER_LOST".
std::string StateName(v1::ReplicaState state);
std::string StateName(v1::WorkerState state);
std::string KindName(v1::GroupKind kind);
std::string KindName(v1::EventKind kind);
std::string ReasonName(v1::ErrorReason reason);
// The same in words: "worker lost".
std::string EventWords(v1::EventKind kind);

// One line. Bytes that are no UTF-8 become U+FFFD.
std::string ToLine(const Json& json);

}  // namespace muster

#endif  // MUSTER_BASE_WIRE_JSON_H_
