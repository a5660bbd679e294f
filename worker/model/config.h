// What config.json of a Hugging Face directory says, checked.
//
// A field that the architecture's reader asks for is understood. Of the others, those that cannot
// change what is computed are skipped: the names in config_fields.cc (training, generation,
// tokenizer and bookkeeping), and those set to what switches them off (null, false, 0, empty, or 1
// for a known multiplier). Any other field is refused by its name, since a model that computes
// something else looks as if it worked.
#ifndef MUSTER_WORKER_MODEL_CONFIG_H_
#define MUSTER_WORKER_MODEL_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/model/model_config.h"

namespace muster {

// Reads DIR/config.json, in the older form (rope_theta, rope_scaling, torch_dtype) or the newer
// (rope_parameters, dtype), and the end tokens of DIR/generation_config.json, if there is one.
// NOT_FOUND: no such directory, no config.json. INVALID_ARGUMENT: names the field, and for an
// architecture, activation or rope type those that are supported. Reason kModelUnusable.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory);

// The same from text. `generation_config` may be empty.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config,
                                             absl::string_view generation_config);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CONFIG_H_
