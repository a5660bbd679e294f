// Takeovers and what is held before them as messages of muster.v1, and back.
#ifndef MUSTER_BASE_WIRE_TAKEOVER_H_
#define MUSTER_BASE_WIRE_TAKEOVER_H_

#include "absl/status/statusor.h"
#include "base/takeover.h"
#include "proto/muster/v1/worker_control.pb.h"

namespace muster {

void ToWire(const Takeover& takeover, v1::ActivateResult* wire);
void ToWire(const CacheSummary& summary, v1::DescribeCacheResponse* wire);
void ToWire(const SequenceName& name, v1::SequenceName* wire);

// All of these: INVALID_ARGUMENT names the field, its value and the limit.

absl::StatusOr<Takeover> FromWire(const v1::ActivateResult& wire);
absl::StatusOr<CacheSummary> FromWire(const v1::DescribeCacheResponse& wire);

}  // namespace muster

#endif  // MUSTER_BASE_WIRE_TAKEOVER_H_
