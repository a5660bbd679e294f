#ifndef MUSTER_WORKER_MODEL_CONFIG_FIELDS_H_
#define MUSTER_WORKER_MODEL_CONFIG_FIELDS_H_

#include "absl/status/status.h"
#include "worker/model/json_object.h"

namespace muster {

// INVALID_ARGUMENT names the first field of config.json, or of an object in it, that nobody has
// asked for although it may change what the model computes; config.h says which may.
absl::Status RefuseUnknownFields(const JsonObject& json);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CONFIG_FIELDS_H_
