#include "worker/model/dense_decoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/cache/block_allocator.h"
#include "worker/collective/partial.h"
#include "worker/model/arena.h"
#include "worker/model/dense_decoder_weights.h"
#include "worker/model/rope_table.h"

namespace muster {
namespace {

using StageReducer = Reducer<GroupKind::kStage>;
using StagePartial = Partial<GroupKind::kStage>;

// What one rank knows of its model, and holds of it.
struct DenseRank {
  ModelConfig config;
  RankShape shape;
  DType dtype;
  DenseWeights weights;
  Device& device;
  Ledger& ledger;

  KvLayout kv_layout() const {
    return {.layers = config.layers,
            .kv_heads = shape.kv_heads.size(),
            .block_size = kKvBlockTokens,
            .head_dim = config.head_dim,
            .dtype = dtype};
  }
};

// Arrays at fixed addresses; rows are tokens of a step.
struct Activations {
  float* residual = nullptr;   // [rows, hidden]
  float* normed = nullptr;     // [rows, hidden]
  float* partial = nullptr;    // [rows, hidden], this rank's summand
  float* qkv = nullptr;        // [rows, (heads + 2 kv_heads) head_dim]
  float* attention = nullptr;  // [rows, heads * head_dim], over the blocks that this rank holds
  float* lse = nullptr;        // [rows, heads]
  float* combined = nullptr;   // [rows, o_columns]; is `attention` where cp is 1
  float* gate_up = nullptr;    // [rows, 2 ffn]
  float* ffn = nullptr;        // [rows, ffn]
  float* hidden = nullptr;     // [rows, hidden], what enters the layer that was asked for
  float* outputs = nullptr;    // [max_outputs, hidden]
  float* logits = nullptr;     // [max_outputs, vocabulary]
  float* cos = nullptr;        // [positions, head_dim / 2]
  float* sin = nullptr;        // [positions, head_dim / 2]
};

class DenseDecoder final : public Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Create(const DenseRank& rank,
                                                       const ModelParts& parts);

  const StepBuffers& buffers() const override { return buffers_; }
  int layers() const override { return rank_.config.layers; }
  int hidden() const override { return rank_.config.hidden; }
  absl::Status Forward(Stream& stream, const ForwardPass& pass) override;

 private:
  DenseDecoder(const DenseRank& rank, const ModelParts& parts, StageReducer stage)
      : rank_(rank), weights_(rank.weights), parts_(parts), ops_(parts.ops), stage_(stage) {}

  absl::Status Allocate();
  absl::Status PrepareOps();

  absl::Status CheckPass(const ForwardPass& pass) const;

  // Writes this rank's part of the rows' embeddings to `partial`.
  absl::Status Embed(Stream& stream, int rows);
  // residual = sum over STAGE of partial; normed = rmsnorm(residual) * norm.
  absl::Status Enter(Stream& stream, int rows, const float* norm);
  absl::Status Layer(Stream& stream, int rows, int index);
  absl::Status Logits(Stream& stream, int outputs);

  // Norms of heads where there are any, rotation, and the write to the cache.
  absl::Status RopeKv(Stream& stream, int rows, int layer);
  absl::Status Attend(Stream& stream, int rows, int layer);
  absl::Status CombineCp(Stream& stream, int rows);
  absl::Status SwiGlu(Stream& stream, int rows);
  // residual += sum over STAGE of partial; normed = rmsnorm(residual) * norm.
  absl::Status ReduceAddNorm(Stream& stream, int rows, const float* norm);
  absl::Status Linear(Stream& stream, int rows, const float* x, const Projection& by, float* y) {
    return ops_.Linear(stream, {.x = x, .weights = by.weights, .bias = by.bias, .y = y}, rows);
  }
  // Keeps the residual where `layer` is the one that was asked for.
  absl::Status KeepHidden(Stream& stream, const ForwardPass& pass, int layer);
  // The norm that reads what enters layer `index`.
  const float* NormBefore(int index) const {
    return index < layers() ? weights_.layers[index].input_norm : weights_.final_norm;
  }
  KvOwnership ownership() const {
    return {.rank = rank_.shape.cp_rank, .size = rank_.shape.cp_size};
  }
  int qkv_width() const {
    return (rank_.shape.heads.size() + 2 * rank_.shape.kv_heads.size()) * rank_.config.head_dim;
  }
  int attention_width() const { return rank_.shape.heads.size() * rank_.config.head_dim; }

  const DenseRank& rank_;
  const DenseWeights& weights_;
  const ModelParts parts_;
  Ops& ops_;
  StageReducer stage_;
  Buffer memory_;  // of buffers_ and act_
  StepBuffers buffers_;
  Activations act_;
};

absl::StatusOr<std::unique_ptr<Model>> DenseDecoder::Create(const DenseRank& rank,
                                                            const ModelParts& parts) {
  const bool has_cp = parts.cp != nullptr && parts.cp->group().kind() == GroupKind::kCp;
  if (rank.shape.cp_size > 1 && !has_cp) {
    return absl::FailedPreconditionError("a model with cp above 1 needs the workspace of CP");
  }
  MUSTER_ASSIGN_OR_RETURN(const StageReducer stage, StageReducer::Create(parts.stage));
  auto model = absl::WrapUnique(new DenseDecoder(rank, parts, stage));
  MUSTER_RETURN_IF_ERROR(model->Allocate());
  MUSTER_RETURN_IF_ERROR(model->PrepareOps());
  return model;
}

absl::Status DenseDecoder::Allocate() {
  const ModelConfig& config = rank_.config;
  const int64_t rows = parts_.limits.max_rows;
  const int64_t outputs = parts_.limits.max_outputs;
  const int64_t held = int64_t{parts_.kv.options().max_local_blocks} * kKvBlockTokens;
  const int64_t positions = std::min<int64_t>(config.max_positions, held * rank_.shape.cp_size);
  Arena arena;
  arena.Add(&buffers_.token_ids, rows);
  arena.Add(&buffers_.positions, rows);
  arena.Add(&buffers_.row_sequences, rows);
  arena.Add(&buffers_.output_rows, outputs);
  arena.Add(&act_.residual, rows * config.hidden);
  arena.Add(&act_.normed, rows * config.hidden);
  arena.Add(&act_.partial, rows * config.hidden);
  arena.Add(&act_.qkv, rows * qkv_width());
  arena.Add(&act_.attention, rows * attention_width());
  arena.Add(&act_.lse, rows * rank_.shape.heads.size());
  if (rank_.shape.cp_size > 1) arena.Add(&act_.combined, rows * rank_.shape.o_columns.size());
  arena.Add(&act_.gate_up, rows * 2 * rank_.shape.ffn.size());
  arena.Add(&act_.ffn, rows * rank_.shape.ffn.size());
  arena.Add(&act_.hidden, rows * config.hidden);
  arena.Add(&act_.outputs, outputs * config.hidden);
  arena.Add(&act_.logits, outputs * rank_.shape.vocabulary.size());
  arena.Add(&act_.cos, positions * config.head_dim / 2);
  arena.Add(&act_.sin, positions * config.head_dim / 2);
  MUSTER_ASSIGN_OR_RETURN(memory_, arena.Allocate(rank_.device, "activations", rank_.ledger));
  if (rank_.shape.cp_size == 1) act_.combined = act_.attention;
  buffers_.block_tables = parts_.kv.block_tables();
  buffers_.kv = parts_.kv.descriptor();
  buffers_.hidden_in = act_.partial;
  buffers_.hidden_out = act_.hidden;
  buffers_.logits = act_.logits;
  FillRopeTable(config.rope, config.head_dim, positions, act_.cos, act_.sin);
  return absl::OkStatus();
}

absl::Status DenseDecoder::PrepareOps() {
  const int rows = parts_.limits.max_rows;
  for (const DenseLayerWeights& layer : weights_.layers) {
    for (const Projection* it : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
      MUSTER_RETURN_IF_ERROR(ops_.Prepare(it->weights, rows));
    }
  }
  return ops_.Prepare(weights_.lm_head.weights, parts_.limits.max_outputs);
}

absl::Status DenseDecoder::CheckPass(const ForwardPass& pass) const {
  const auto [begin, end] = pass.layers;
  const bool in_range = pass.rows >= 1 && pass.rows <= parts_.limits.max_rows && begin >= 0 &&
                        begin <= end && end <= layers() && (begin == 0 || pass.from_hidden);
  const int most = end == layers() ? parts_.limits.max_outputs : 0;
  const bool kept = pass.hidden_of == -1 || (pass.hidden_of >= begin && pass.hidden_of <= end);
  if (in_range && pass.outputs >= 0 && pass.outputs <= most && kept) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "a pass of ", pass.rows, " rows and ", pass.outputs, " outputs through layers ", begin,
      " to ", end, pass.from_hidden ? " from hidden states" : " from tokens",
      ", keeping what enters layer ", pass.hidden_of, "; the most are ", parts_.limits.max_rows,
      " rows, ", parts_.limits.max_outputs, " outputs and ", layers(), " layers"));
}

absl::Status DenseDecoder::Forward(Stream& stream, const ForwardPass& pass) {
  MUSTER_RETURN_IF_ERROR(CheckPass(pass));
  if (!pass.from_hidden) MUSTER_RETURN_IF_ERROR(Embed(stream, pass.rows));
  MUSTER_RETURN_IF_ERROR(Enter(stream, pass.rows, NormBefore(pass.layers.begin)));
  for (int layer = pass.layers.begin; layer < pass.layers.end; ++layer) {
    MUSTER_RETURN_IF_ERROR(KeepHidden(stream, pass, layer));
    MUSTER_RETURN_IF_ERROR(Layer(stream, pass.rows, layer));
  }
  MUSTER_RETURN_IF_ERROR(KeepHidden(stream, pass, pass.layers.end));
  return Logits(stream, pass.outputs);
}

absl::Status DenseDecoder::KeepHidden(Stream& stream, const ForwardPass& pass, int layer) {
  if (pass.hidden_of != layer) return absl::OkStatus();
  return rank_.device.Copy(stream, act_.hidden, act_.residual,
                           sizeof(float) * static_cast<size_t>(pass.rows) * hidden());
}

absl::Status DenseDecoder::Layer(Stream& stream, int rows, int index) {
  const DenseLayerWeights& layer = weights_.layers[index];
  MUSTER_RETURN_IF_ERROR(Linear(stream, rows, act_.normed, layer.qkv, act_.qkv));
  MUSTER_RETURN_IF_ERROR(RopeKv(stream, rows, index));
  MUSTER_RETURN_IF_ERROR(Attend(stream, rows, index));
  MUSTER_RETURN_IF_ERROR(CombineCp(stream, rows));
  MUSTER_RETURN_IF_ERROR(Linear(stream, rows, act_.combined, layer.o, act_.partial));
  MUSTER_RETURN_IF_ERROR(ReduceAddNorm(stream, rows, layer.post_norm));
  MUSTER_RETURN_IF_ERROR(Linear(stream, rows, act_.normed, layer.gate_up, act_.gate_up));
  MUSTER_RETURN_IF_ERROR(SwiGlu(stream, rows));
  MUSTER_RETURN_IF_ERROR(Linear(stream, rows, act_.ffn, layer.down, act_.partial));
  return ReduceAddNorm(stream, rows, NormBefore(index + 1));
}

absl::Status DenseDecoder::Embed(Stream& stream, int rows) {
  const EmbeddingParams params = {.ids = buffers_.token_ids,
                                  .table = weights_.embedding.data,
                                  .dtype = weights_.embedding.dtype,
                                  .vocab_begin = rank_.shape.vocabulary.begin,
                                  .vocab_end = rank_.shape.vocabulary.end,
                                  .hidden = rank_.config.hidden,
                                  .out = act_.partial};
  return ops_.Embed(stream, params, rows);
}

absl::Status DenseDecoder::Enter(Stream& stream, int rows, const float* norm) {
  return stage_.ReduceAddNorm(stream, StagePartial{act_.partial, rows, rank_.config.hidden},
                              {.residual_in = nullptr,
                               .weight = norm,
                               .eps = static_cast<float>(rank_.config.rms_norm_eps),
                               .residual_out = act_.residual,
                               .norm_out = act_.normed});
}

absl::Status DenseDecoder::RopeKv(Stream& stream, int rows, int layer) {
  const RopeKvParams params = {.qkv = act_.qkv,
                               .row_stride = qkv_width(),
                               .heads = rank_.shape.heads.size(),
                               .positions = buffers_.positions,
                               .row_sequences = buffers_.row_sequences,
                               .cos = act_.cos,
                               .sin = act_.sin,
                               .kv = buffers_.kv,
                               .layout = rank_.kv_layout(),
                               .ownership = ownership(),
                               .layer = layer,
                               .q_norm = weights_.layers[layer].q_norm,
                               .k_norm = weights_.layers[layer].k_norm,
                               .norm_eps = static_cast<float>(rank_.config.rms_norm_eps)};
  return ops_.RopeKv(stream, params, rows);
}

absl::Status DenseDecoder::Attend(Stream& stream, int rows, int layer) {
  const PagedAttentionParams params = {
      .q = act_.qkv,
      .q_row_stride = qkv_width(),
      .heads = rank_.shape.heads.size(),
      .positions = buffers_.positions,
      .row_sequences = buffers_.row_sequences,
      .kv = buffers_.kv,
      .layout = rank_.kv_layout(),
      .ownership = ownership(),
      .layer = layer,
      .scale = 1.0f / std::sqrt(static_cast<float>(rank_.config.head_dim)),
      .out = act_.attention,
      .out_row_stride = attention_width(),
      .lse = act_.lse,
      .lse_row_stride = rank_.shape.heads.size(),
      .window = rank_.config.WindowOf(layer)};
  return ops_.Attend(stream, params, rows);
}

absl::Status DenseDecoder::CombineCp(Stream& stream, int rows) {
  if (rank_.shape.cp_size == 1) return absl::OkStatus();
  return parts_.cp->Enqueue(stream, CpCombine{.partial = act_.attention,
                                              .lse = act_.lse,
                                              .out = act_.combined,
                                              .tokens = rows,
                                              .heads = rank_.shape.heads.size(),
                                              .head_dim = rank_.config.head_dim});
}

absl::Status DenseDecoder::SwiGlu(Stream& stream, int rows) {
  const int width = rank_.shape.ffn.size();
  const SwiGluParams params = {.gate_up = act_.gate_up,
                               .row_stride = 2 * width,
                               .width = width,
                               .out = act_.ffn,
                               .out_row_stride = width};
  return ops_.SwiGlu(stream, params, rows);
}

absl::Status DenseDecoder::ReduceAddNorm(Stream& stream, int rows, const float* norm) {
  return stage_.ReduceAddNorm(stream, StagePartial{act_.partial, rows, rank_.config.hidden},
                              {.residual_in = act_.residual,
                               .weight = norm,
                               .eps = static_cast<float>(rank_.config.rms_norm_eps),
                               .residual_out = act_.residual,
                               .norm_out = act_.normed});
}

absl::Status DenseDecoder::Logits(Stream& stream, int outputs) {
  if (outputs == 0) return absl::OkStatus();
  const GatherRowsParams gather = {.x = act_.normed,
                                   .index = buffers_.output_rows,
                                   .hidden = rank_.config.hidden,
                                   .out = act_.outputs};
  MUSTER_RETURN_IF_ERROR(ops_.GatherRows(stream, gather, outputs));
  return Linear(stream, outputs, act_.outputs, weights_.lm_head, act_.logits);
}

class LoadedDenseDecoder final : public LoadedModel {
 public:
  explicit LoadedDenseDecoder(DenseRank rank) : rank_(std::move(rank)) {}

  KvLayout kv_layout() const override { return rank_.kv_layout(); }
  const HeldWeights& weights() const override { return rank_.weights.memory; }
  uint64_t shared_weight_bytes() const override { return weights().shared_bytes; }

  std::vector<CollectiveUse> collectives(const StepLimits& limits) const override {
    std::vector<CollectiveUse> uses = {
        CollectiveUse::AllReduceRmsNorm(GroupKind::kStage, rank_.config.hidden, limits.max_rows)};
    if (rank_.shape.cp_size > 1) {
      uses.push_back(CollectiveUse::CpCombine(rank_.shape.heads.size(), rank_.config.head_dim,
                                              limits.max_rows));
    }
    return uses;
  }

  absl::StatusOr<std::unique_ptr<Model>> BuildModel(const ModelParts& parts) override {
    return DenseDecoder::Create(rank_, parts);
  }

 private:
  const DenseRank rank_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadDenseDecoder(const LoadRequest& request) {
  MUSTER_ASSIGN_OR_RETURN(DenseWeights weights, LoadDenseWeights(request));
  return std::make_unique<LoadedDenseDecoder>(DenseRank{.config = request.config,
                                                        .shape = request.shape,
                                                        .dtype = request.dtype,
                                                        .weights = std::move(weights),
                                                        .device = request.device,
                                                        .ledger = request.ledger});
}

}  // namespace muster
