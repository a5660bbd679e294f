#include "worker/model/llama_weights.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace muster {
namespace {

ShardRange Scaled(ShardRange range, int factor) {
  return {.begin = range.begin * factor, .end = range.end * factor};
}

// The slices of this rank, by their meaning.
class LlamaSlices {
 public:
  LlamaSlices(const ModelConfig& config, const RankShape& shape) : config_(config), shape_(shape) {}

  std::vector<TensorSlice> Qkv(const std::string& layer) const {
    const ShardRange q = Scaled(shape_.heads, config_.head_dim);
    const ShardRange kv = Scaled(shape_.kv_heads, config_.head_dim);
    const int q_rows = config_.heads * config_.head_dim;
    const int kv_rows = config_.kv_heads * config_.head_dim;
    return {Rows(layer + "self_attn.q_proj.weight", q_rows, q),
            Rows(layer + "self_attn.k_proj.weight", kv_rows, kv),
            Rows(layer + "self_attn.v_proj.weight", kv_rows, kv)};
  }
  std::vector<TensorSlice> O(const std::string& layer) const {
    return {Columns(layer + "self_attn.o_proj.weight", config_.heads * config_.head_dim,
                    shape_.o_columns)};
  }
  std::vector<TensorSlice> GateUp(const std::string& layer) const {
    return {Rows(layer + "mlp.gate_proj.weight", config_.ffn, shape_.ffn),
            Rows(layer + "mlp.up_proj.weight", config_.ffn, shape_.ffn)};
  }
  std::vector<TensorSlice> Down(const std::string& layer) const {
    return {Columns(layer + "mlp.down_proj.weight", config_.ffn, shape_.ffn)};
  }
  std::vector<TensorSlice> Vocabulary(const std::string& tensor) const {
    return {Rows(tensor, config_.vocabulary, shape_.vocabulary)};
  }

 private:
  // Rows of a tensor [rows, hidden].
  TensorSlice Rows(const std::string& tensor, int rows, ShardRange shard) const {
    return {.tensor = tensor,
            .rows = rows,
            .columns = config_.hidden,
            .row_shard = shard,
            .column_shard = {0, config_.hidden}};
  }
  // Columns of a tensor [hidden, columns].
  TensorSlice Columns(const std::string& tensor, int columns, ShardRange shard) const {
    return {.tensor = tensor,
            .rows = config_.hidden,
            .columns = columns,
            .row_shard = {0, config_.hidden},
            .column_shard = shard};
  }

  const ModelConfig& config_;
  const RankShape& shape_;
};

}  // namespace

absl::StatusOr<LlamaWeights> LoadLlamaWeights(const LoadRequest& request) {
  const ModelConfig& config = request.config;
  const LlamaSlices slices(config, request.shape);
  WeightLoader loader(request.checkpoint, request.dtype);
  LlamaWeights weights;
  weights.layers.resize(config.layers);
  loader.AddMatrix(slices.Vocabulary("model.embed_tokens.weight"), &weights.embedding);
  for (int i = 0; i < config.layers; ++i) {
    const std::string name = absl::StrCat("model.layers.", i, ".");
    LlamaLayerWeights& layer = weights.layers[i];
    loader.AddVector(name + "input_layernorm.weight", config.hidden, &layer.input_norm);
    loader.AddMatrix(slices.Qkv(name), &layer.qkv);
    loader.AddMatrix(slices.O(name), &layer.o);
    loader.AddVector(name + "post_attention_layernorm.weight", config.hidden, &layer.post_norm);
    loader.AddMatrix(slices.GateUp(name), &layer.gate_up);
    loader.AddMatrix(slices.Down(name), &layer.down);
  }
  loader.AddVector("model.norm.weight", config.hidden, &weights.final_norm);
  if (!config.tied_embeddings) {
    loader.AddMatrix(slices.Vocabulary("lm_head.weight"), &weights.lm_head);
  }
  MUSTER_ASSIGN_OR_RETURN(weights.memory,
                          loader.Load(request.device, request.ledger, request.progress));
  if (config.tied_embeddings) weights.lm_head = weights.embedding;
  return weights;
}

}  // namespace muster
