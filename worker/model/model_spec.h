#ifndef MUSTER_WORKER_MODEL_MODEL_SPEC_H_
#define MUSTER_WORKER_MODEL_MODEL_SPEC_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/topology.h"
#include "kernels/dtype.h"
#include "worker/model/checkpoint.h"
#include "worker/model/model_config.h"

namespace muster {

// The type in which a rank holds weights and KV. `option`: "float32", "bfloat16", "float16", or
// "auto": the checkpoint's own, as config.json or else the files say it. Where the device has no
// float16, "auto" makes it float32. INVALID_ARGUMENT: another option, or float16 where there is
// none.
absl::StatusOr<DType> ChooseDType(absl::string_view option, const ModelConfig& config,
                                  const Checkpoint& checkpoint, bool has_float16 = false);

// What planning and agreement need to know; the digest covers config.json and the files' headers.
ModelSpec ToSpec(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_MODEL_SPEC_H_
