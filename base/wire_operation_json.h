// Operations, and what changes of shape take, as JSON for programs: every number with its unit.
#ifndef MUSTER_BASE_WIRE_OPERATION_JSON_H_
#define MUSTER_BASE_WIRE_OPERATION_JSON_H_

#include <string>

#include "base/wire_json.h"

namespace muster {

// "ended" and "failure" only where there are any; "took_ms" once it has ended.
Json OperationJson(const v1::Operation& operation);
// {"operations": [...]}, in the order of the message.
Json OperationsJson(const v1::ListOperationsResponse& operations);
Json ChangeJson(const v1::ReplicaChange& change);
// As PlanJson(plan), and its changes.
Json PlanWithChangesJson(const v1::PlanTopologyResponse& plan);

// The names of enum values, without their prefix: "SCALE_CONTEXT_PARALLEL", "RUNNING", "PREPARING",
// "SURVIVOR".
std::string KindName(v1::OperationKind kind);
std::string StateName(v1::OperationState state);
std::string StageName(v1::ResizeStage stage);
std::string RoleName(v1::RankChange::Role role);

}  // namespace muster

#endif  // MUSTER_BASE_WIRE_OPERATION_JSON_H_
