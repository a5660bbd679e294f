#include "worker/model/dense_decoder_weights.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace muster {
namespace {

ShardRange Scaled(ShardRange range, int factor) {
  return {.begin = range.begin * factor, .end = range.end * factor};
}

// Which rows or columns of a projection are this rank's.
struct Shard {
  std::string name;  // of the projection, without ".weight"
  int size = 0;      // of the whole
  ShardRange range;
};

// Adds the slices of this rank to a loader, by their meaning.
class DenseSlices {
 public:
  DenseSlices(const ModelConfig& config, const RankShape& shape, WeightLoader& loader)
      : config_(config), shape_(shape), loader_(loader) {}

  void Layer(const std::string& name, DenseLayerWeights& layer) {
    const int head_dim = config_.head_dim;
    loader_.AddVector(WeightGroup::kTp, name + "input_layernorm.weight", config_.hidden,
                      &layer.input_norm);
    AddRows(WeightGroup::kTp, Qkv(name + "self_attn."), config_.qkv_bias, layer.qkv);
    if (config_.qk_norm) {
      loader_.AddVector(WeightGroup::kTp, name + "self_attn.q_norm.weight", head_dim,
                        &layer.q_norm);
      loader_.AddVector(WeightGroup::kTp, name + "self_attn.k_norm.weight", head_dim,
                        &layer.k_norm);
    }
    AddColumns({name + "self_attn.o_proj", config_.heads * head_dim, shape_.o_columns},
               config_.o_bias, layer.o);
    loader_.AddVector(WeightGroup::kTp, name + "post_attention_layernorm.weight", config_.hidden,
                      &layer.post_norm);
    AddRows(WeightGroup::kStage,
            {{name + "mlp.gate_proj", config_.ffn, shape_.ffn},
             {name + "mlp.up_proj", config_.ffn, shape_.ffn}},
            config_.mlp_bias, layer.gate_up);
    AddColumns({name + "mlp.down_proj", config_.ffn, shape_.ffn}, config_.mlp_bias, layer.down);
  }

  void Vocabulary(const std::string& name, Matrix& table) {
    loader_.AddMatrix(WeightGroup::kStage, {RowsOf({name, config_.vocabulary, shape_.vocabulary})},
                      &table);
  }

 private:
  std::vector<Shard> Qkv(const std::string& block) const {
    const ShardRange q = Scaled(shape_.heads, config_.head_dim);
    const ShardRange kv = Scaled(shape_.kv_heads, config_.head_dim);
    const int kv_rows = config_.kv_heads * config_.head_dim;
    return {{block + "q_proj", config_.heads * config_.head_dim, q},
            {block + "k_proj", kv_rows, kv},
            {block + "v_proj", kv_rows, kv}};
  }

  // Of a tensor [size, hidden].
  TensorSlice RowsOf(const Shard& shard) const {
    return {.tensor = shard.name + ".weight",
            .rows = shard.size,
            .columns = config_.hidden,
            .row_shard = shard.range,
            .column_shard = {0, config_.hidden}};
  }

  // Projections of x, one below the other.
  void AddRows(WeightGroup group, const std::vector<Shard>& shards, bool biased,
               Projection& projection) {
    std::vector<TensorSlice> weights;
    std::vector<VectorSlice> bias;
    for (const Shard& shard : shards) {
      weights.push_back(RowsOf(shard));
      bias.push_back({.tensor = shard.name + ".bias", .size = shard.size, .shard = shard.range});
    }
    loader_.AddMatrix(group, std::move(weights), &projection.weights);
    if (biased) loader_.AddVector(group, std::move(bias), &projection.bias);
  }

  // Columns of a tensor [hidden, size]: this rank's summand of a projection.
  void AddColumns(const Shard& shard, bool biased, Projection& projection) {
    loader_.AddMatrix(WeightGroup::kStage,
                      {{.tensor = shard.name + ".weight",
                        .rows = config_.hidden,
                        .columns = shard.size,
                        .row_shard = {0, config_.hidden},
                        .column_shard = shard.range}},
                      &projection.weights);
    if (biased && shape_.stage_rank == 0) {
      loader_.AddVector(WeightGroup::kStage, shard.name + ".bias", config_.hidden,
                        &projection.bias);
    }
  }

  const ModelConfig& config_;
  const RankShape& shape_;
  WeightLoader& loader_;
};

}  // namespace

absl::StatusOr<DenseWeights> LoadDenseWeights(const LoadRequest& request) {
  const ModelConfig& config = request.config;
  WeightLoader loader(request.checkpoint, request.dtype);
  DenseSlices slices(config, request.shape, loader);
  DenseWeights weights;
  weights.layers.resize(config.layers);
  slices.Vocabulary("model.embed_tokens", weights.embedding);
  for (int i = 0; i < config.layers; ++i) {
    slices.Layer(absl::StrCat("model.layers.", i, "."), weights.layers[i]);
  }
  loader.AddVector(WeightGroup::kTp, "model.norm.weight", config.hidden, &weights.final_norm);
  if (!config.tied_embeddings) slices.Vocabulary("lm_head", weights.lm_head.weights);
  const HeldWeights* previous = request.previous ? &request.previous->weights() : nullptr;
  MUSTER_ASSIGN_OR_RETURN(weights.memory,
                          loader.Load(request.device, request.ledger, previous, request.progress));
  if (config.tied_embeddings) weights.lm_head.weights = weights.embedding;
  return weights;
}

}  // namespace muster
