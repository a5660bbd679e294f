// The engine's requests and answers as messages of muster.v1.Inference, and back.
#ifndef MUSTER_WORKER_SERVICE_WIRE_INFERENCE_H_
#define MUSTER_WORKER_SERVICE_WIRE_INFERENCE_H_

#include "absl/status/statusor.h"
#include "proto/muster/v1/inference.pb.h"
#include "worker/engine/batch.h"
#include "worker/engine/held_epoch.h"

namespace muster {

// INVALID_ARGUMENT: more slices than a step can have, which are then not worth taking apart.
absl::Status CheckSlices(const v1::ForwardRequest& wire, const BatchLimits& limits);

// As it came, but of `client` (client_names.h): the engine checks it.
ForwardBatch FromWire(const v1::ForwardRequest& wire, std::string client);

// `request` is what the result answers.
void ToWire(const ForwardResult& result, const v1::ForwardRequest& request,
            v1::ForwardResponse* wire);

// INVALID_ARGUMENT: more than 65,536 sequences, or some beside `all`.
absl::StatusOr<FreeOrder> FromWire(const v1::FreeSequencesRequest& wire, std::string client);
ForkOrder FromWire(const v1::ForkSequenceRequest& wire, std::string client);
void ToWire(const Forked& forked, v1::ForkSequenceResponse* wire);

void CapacityToWire(const ServingEpoch& epoch, v1::Capacity* wire);
void ModelToWire(const ServingEpoch& epoch, v1::GetModelResponse* wire);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_WIRE_INFERENCE_H_
