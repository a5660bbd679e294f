// Decoders of pre-norm layers (Xiong et al., 2020; RMS norms of Zhang and Sennrich, 2019): rotary
// attention with grouped KV heads (Su et al., 2021; Ainslie et al., 2023), then one SwiGLU
// (Shazeer, 2020). ModelConfig says what else the layers have: biases, norms of heads, windows.
#ifndef MUSTER_WORKER_MODEL_DENSE_DECODER_H_
#define MUSTER_WORKER_MODEL_DENSE_DECODER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/model/loaded_model.h"

namespace muster {

// Copies this rank's shards. Errors as of WeightLoader::Load.
absl::StatusOr<std::unique_ptr<LoadedModel>> LoadDenseDecoder(const LoadRequest& request);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_DENSE_DECODER_H_
