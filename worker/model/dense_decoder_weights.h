#ifndef MUSTER_WORKER_MODEL_DENSE_DECODER_WEIGHTS_H_
#define MUSTER_WORKER_MODEL_DENSE_DECODER_WEIGHTS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/loaded_model.h"
#include "worker/model/matrix.h"

namespace muster {

// y = x W^T + bias.
struct Projection {
  Matrix weights;
  const float* bias = nullptr;  // [weights.n], or null: none is to be added on this rank
};

// One rank's shards of one layer. q, k, v and gate, up lie one below the other. Biases are sharded
// with the rows of their weights; those of o and down, whose columns are, are on rank 0 of STAGE
// alone, since the ranks' products are summed.
struct DenseLayerWeights {
  const float* input_norm = nullptr;  // [hidden]
  Projection qkv;                     // [(heads + 2 kv_heads) head_dim, hidden], over TP
  const float* q_norm = nullptr;      // [head_dim], or null
  const float* k_norm = nullptr;      // [head_dim], or null
  Projection o;                       // [hidden, o_columns], over STAGE
  const float* post_norm = nullptr;   // [hidden]
  Projection gate_up;                 // [2 ffn, hidden], over STAGE
  Projection down;                    // [hidden, ffn], over STAGE
};

struct DenseWeights {
  Matrix embedding;  // [vocabulary, hidden], over STAGE
  std::vector<DenseLayerWeights> layers;
  const float* final_norm = nullptr;  // [hidden]
  Projection lm_head;  // as embedding, and the same memory when they are tied; no bias
  HeldWeights memory;  // of all of the above
};

// Errors as of WeightLoader::Load.
absl::StatusOr<DenseWeights> LoadDenseWeights(const LoadRequest& request);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_DENSE_DECODER_WEIGHTS_H_
