#ifndef MUSTER_WORKER_MODEL_LLAMA_WEIGHTS_H_
#define MUSTER_WORKER_MODEL_LLAMA_WEIGHTS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/loaded_model.h"
#include "worker/model/matrix.h"

namespace muster {

// One rank's shards of one layer. q, k, v and gate, up lie one below the other.
struct LlamaLayerWeights {
  const float* input_norm = nullptr;  // [hidden]
  Matrix qkv;                         // [(heads + 2 kv_heads) head_dim, hidden], over TP
  Matrix o;                           // [hidden, o_columns], over STAGE
  const float* post_norm = nullptr;   // [hidden]
  Matrix gate_up;                     // [2 ffn, hidden], over STAGE
  Matrix down;                        // [hidden, ffn], over STAGE
};

struct LlamaWeights {
  Matrix embedding;  // [vocabulary, hidden], over STAGE
  std::vector<LlamaLayerWeights> layers;
  const float* final_norm = nullptr;  // [hidden]
  Matrix lm_head;                     // as embedding, and the same memory when they are tied
  Buffer memory;                      // of all of the above
};

// Errors as of WeightLoader::Load.
absl::StatusOr<LlamaWeights> LoadLlamaWeights(const LoadRequest& request);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_LLAMA_WEIGHTS_H_
