// The life of epochs as messages of muster.v1.WorkerControl, and back.
#ifndef MUSTER_WORKER_SERVICE_WIRE_CONTROL_H_
#define MUSTER_WORKER_SERVICE_WIRE_CONTROL_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/muster/v1/worker_control.pb.h"
#include "worker/engine/held_epoch.h"

namespace muster {

// Bound of every wait that a call may ask for.
inline constexpr absl::Duration kLongestControlTimeout = absl::Minutes(10);

// INVALID_ARGUMENT names the field.
absl::StatusOr<EpochCall> FromWire(const v1::ControlHeader& wire);
absl::StatusOr<EpochCall> FromWire(const v1::ActivateRequest& wire);
absl::StatusOr<EpochCall> FromWire(const v1::ReleaseRequest& wire);

void ToWire(const EpochOutcome& outcome, v1::LoadResponse* wire);
void ToWire(const EpochOutcome& outcome, v1::WarmupResponse* wire);
void ToWire(const EpochOutcome& outcome, v1::CaptureResponse* wire);
void ToWire(const EpochOutcome& outcome, v1::ActivateResponse* wire);
void ToWire(const EpochStatus& status, v1::EpochStatus* wire);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_WIRE_CONTROL_H_
