#ifndef MUSTER_WORKER_MODEL_ROPE_CONFIG_H_
#define MUSTER_WORKER_MODEL_ROPE_CONFIG_H_

#include "absl/status/status.h"
#include "worker/model/json_object.h"
#include "worker/model/model_config.h"

namespace muster {

// Reads rope_theta and rope_scaling (the older form) or rope_parameters (the newer) into
// config.rope. config.max_positions is max_position_embeddings before, and the longest context
// after: for `dynamic` that is the original one times the factor, since there
// max_position_embeddings means the original one; for `yarn` at least that.
// INVALID_ARGUMENT names the field, and for a type those that are supported.
absl::Status ReadRope(const JsonObject& json, ModelConfig& config);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_ROPE_CONFIG_H_
