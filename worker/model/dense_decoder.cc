#include "worker/model/dense_decoder.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/cache/block_allocator.h"
#include "worker/collective/partial.h"
#include "worker/model/dense_decoder_memory.h"
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

class DenseDecoder final : public Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Create(const DenseRank& rank,
                                                       const ModelParts& parts);

  const StepBuffers& buffers() const override { return memory_->step(); }
  int layers() const override { return rank_.config.layers; }
  int hidden() const override { return rank_.config.hidden; }
  absl::Status Forward(Stream& stream, const ForwardPass& pass) override;

 private:
  DenseDecoder(const DenseRank& rank, const ModelParts& parts, StageReducer stage)
      : rank_(rank),
        weights_(rank.weights),
        parts_(parts),
        ops_(parts.ops),
        dtype_(parts.ops.Activation(rank.dtype)),
        stage_(stage) {}

  absl::Status Allocate();
  absl::Status FillRopeTables(int64_t positions);
  absl::Status PrepareOps();

  absl::Status CheckPass(const ForwardPass& pass) const;

  // Brings the hidden states over that take the place of embeddings.
  absl::Status CopyHiddenIn(Stream& stream, int rows);
  // Writes this rank's part of the rows' embeddings to `partial`.
  absl::Status Embed(Stream& stream, int rows);
  // residual = sum over STAGE of partial; normed = rmsnorm(residual) * norm.
  absl::Status Enter(Stream& stream, int rows, const float* norm);
  absl::Status Layer(Stream& stream, int rows, int index);
  absl::Status Logits(Stream& stream, int outputs);

  // Norms of heads where there are any, rotation, and the write to the cache.
  absl::Status RopeKv(Stream& stream, int rows, int layer);
  PagedAttentionParams AttentionOf(int layer) const;
  absl::Status CombineCp(Stream& stream, int rows);
  absl::Status SwiGlu(Stream& stream, int rows);
  // residual += sum over STAGE of partial; normed = rmsnorm(residual) * norm.
  absl::Status ReduceAddNorm(Stream& stream, int rows, const float* norm);
  absl::Status Linear(Stream& stream, int rows, const void* x, const Projection& by, void* y) {
    return ops_.Linear(
        stream, {.x = x, .weights = by.weights, .bias = by.bias, .y = y, .y_dtype = dtype_}, rows);
  }
  StagePartial PartialOf(int rows) const {
    return {.data = act_.partial, .tokens = rows, .hidden = rank_.config.hidden, .dtype = dtype_};
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
  const DType dtype_;  // of activations
  StageReducer stage_;
  std::optional<DenseDecoderMemory> memory_;
  StepInputs inputs_;  // of memory_
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
  const int64_t held = int64_t{parts_.kv.options().max_local_blocks} * kKvBlockTokens;
  const DenseWidths widths = {
      .hidden = rank_.config.hidden,
      .qkv = qkv_width(),
      .heads = rank_.shape.heads.size(),
      .attention = attention_width(),
      .combined = rank_.shape.cp_size > 1 ? rank_.shape.o_columns.size() : 0,
      .ffn = rank_.shape.ffn.size(),
      .vocabulary = rank_.shape.vocabulary.size(),
      .rope = rank_.config.head_dim / 2,
      .positions = std::min<int64_t>(rank_.config.max_positions, held * rank_.shape.cp_size)};
  MUSTER_ASSIGN_OR_RETURN(memory_, DenseDecoderMemory::Allocate(widths, parts_.limits, dtype_,
                                                                rank_.device, rank_.ledger));
  inputs_ = memory_->inputs();
  act_ = memory_->activations();
  return FillRopeTables(widths.positions);
}

absl::Status DenseDecoder::FillRopeTables(int64_t positions) {
  const size_t count = static_cast<size_t>(positions * rank_.config.head_dim / 2);
  std::vector<float> cos(count), sin(count);
  FillRopeTable(rank_.config.rope, rank_.config.head_dim, positions, cos.data(), sin.data());
  MUSTER_ASSIGN_OR_RETURN(const auto stream, rank_.device.CreateStream());
  const size_t bytes = count * sizeof(float);
  MUSTER_RETURN_IF_ERROR(rank_.device.Copy(*stream, act_.cos, cos.data(), bytes));
  MUSTER_RETURN_IF_ERROR(rank_.device.Copy(*stream, act_.sin, sin.data(), bytes));
  return stream->Synchronize();
}

absl::Status DenseDecoder::PrepareOps() {
  const int rows = parts_.limits.max_rows;
  for (const DenseLayerWeights& layer : weights_.layers) {
    for (const Projection* it : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
      MUSTER_RETURN_IF_ERROR(ops_.Prepare(it->weights, rows));
    }
  }
  if (layers() > 0) MUSTER_RETURN_IF_ERROR(ops_.PrepareAttention(AttentionOf(0), rows));
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
  MUSTER_RETURN_IF_ERROR(memory_->CopyInputs(rank_.device, stream));
  MUSTER_RETURN_IF_ERROR(pass.from_hidden ? CopyHiddenIn(stream, pass.rows)
                                          : Embed(stream, pass.rows));
  MUSTER_RETURN_IF_ERROR(Enter(stream, pass.rows, NormBefore(pass.layers.begin)));
  for (int layer = pass.layers.begin; layer < pass.layers.end; ++layer) {
    MUSTER_RETURN_IF_ERROR(KeepHidden(stream, pass, layer));
    MUSTER_RETURN_IF_ERROR(Layer(stream, pass.rows, layer));
  }
  MUSTER_RETURN_IF_ERROR(KeepHidden(stream, pass, pass.layers.end));
  return Logits(stream, pass.outputs);
}

absl::Status DenseDecoder::CopyHiddenIn(Stream& stream, int rows) {
  const int64_t count = int64_t{rows} * hidden();
  MUSTER_RETURN_IF_ERROR(
      rank_.device.Copy(stream, act_.hidden, buffers().hidden_in, sizeof(float) * count));
  return ops_.Convert(stream, {.from = act_.hidden, .to = act_.partial, .to_dtype = dtype_}, count);
}

absl::Status DenseDecoder::KeepHidden(Stream& stream, const ForwardPass& pass, int layer) {
  if (pass.hidden_of != layer) return absl::OkStatus();
  const int64_t count = int64_t{pass.rows} * hidden();
  MUSTER_RETURN_IF_ERROR(ops_.Convert(
      stream, {.from = act_.residual, .from_dtype = dtype_, .to = act_.hidden}, count));
  return rank_.device.Copy(stream, memory_->hidden_out(), act_.hidden, sizeof(float) * count);
}

absl::Status DenseDecoder::Layer(Stream& stream, int rows, int index) {
  const DenseLayerWeights& layer = weights_.layers[index];
  MUSTER_RETURN_IF_ERROR(Linear(stream, rows, act_.normed, layer.qkv, act_.qkv));
  MUSTER_RETURN_IF_ERROR(RopeKv(stream, rows, index));
  MUSTER_RETURN_IF_ERROR(ops_.Attend(stream, AttentionOf(index), rows));
  MUSTER_RETURN_IF_ERROR(CombineCp(stream, rows));
  MUSTER_RETURN_IF_ERROR(Linear(stream, rows, act_.combined, layer.o, act_.partial));
  MUSTER_RETURN_IF_ERROR(ReduceAddNorm(stream, rows, layer.post_norm));
  MUSTER_RETURN_IF_ERROR(Linear(stream, rows, act_.normed, layer.gate_up, act_.gate_up));
  MUSTER_RETURN_IF_ERROR(SwiGlu(stream, rows));
  MUSTER_RETURN_IF_ERROR(Linear(stream, rows, act_.ffn, layer.down, act_.partial));
  return ReduceAddNorm(stream, rows, NormBefore(index + 1));
}

absl::Status DenseDecoder::Embed(Stream& stream, int rows) {
  const EmbeddingParams params = {.ids = inputs_.token_ids,
                                  .table = weights_.embedding.data,
                                  .dtype = weights_.embedding.dtype,
                                  .vocab_begin = rank_.shape.vocabulary.begin,
                                  .vocab_end = rank_.shape.vocabulary.end,
                                  .hidden = rank_.config.hidden,
                                  .out = act_.partial,
                                  .activation = dtype_};
  return ops_.Embed(stream, params, rows);
}

absl::Status DenseDecoder::Enter(Stream& stream, int rows, const float* norm) {
  return stage_.ReduceAddNorm(stream, PartialOf(rows),
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
                               .positions = inputs_.positions,
                               .row_sequences = inputs_.row_sequences,
                               .cos = act_.cos,
                               .sin = act_.sin,
                               .kv = parts_.kv.descriptor(),
                               .layout = rank_.kv_layout(),
                               .ownership = ownership(),
                               .layer = layer,
                               .q_norm = weights_.layers[layer].q_norm,
                               .k_norm = weights_.layers[layer].k_norm,
                               .norm_eps = static_cast<float>(rank_.config.rms_norm_eps),
                               .activation = dtype_};
  return ops_.RopeKv(stream, params, rows);
}

PagedAttentionParams DenseDecoder::AttentionOf(int layer) const {
  return {.q = act_.qkv,
          .q_row_stride = qkv_width(),
          .heads = rank_.shape.heads.size(),
          .positions = inputs_.positions,
          .row_sequences = inputs_.row_sequences,
          .kv = parts_.kv.descriptor(),
          .layout = rank_.kv_layout(),
          .ownership = ownership(),
          .layer = layer,
          .scale = 1.0f / std::sqrt(static_cast<float>(rank_.config.head_dim)),
          .out = act_.attention,
          .out_row_stride = attention_width(),
          .lse = act_.lse,
          .lse_row_stride = rank_.shape.heads.size(),
          .window = rank_.config.WindowOf(layer),
          .activation = dtype_};
}

absl::Status DenseDecoder::CombineCp(Stream& stream, int rows) {
  if (rank_.shape.cp_size == 1) return absl::OkStatus();
  return parts_.cp->Enqueue(stream, CpCombine{.partial = act_.attention,
                                              .lse = act_.lse,
                                              .out = act_.combined,
                                              .tokens = rows,
                                              .heads = rank_.shape.heads.size(),
                                              .head_dim = rank_.config.head_dim,
                                              .dtype = dtype_});
}

absl::Status DenseDecoder::SwiGlu(Stream& stream, int rows) {
  const int width = rank_.shape.ffn.size();
  const SwiGluParams params = {.gate_up = act_.gate_up,
                               .row_stride = 2 * width,
                               .width = width,
                               .out = act_.ffn,
                               .out_row_stride = width,
                               .activation = dtype_};
  return ops_.SwiGlu(stream, params, rows);
}

absl::Status DenseDecoder::ReduceAddNorm(Stream& stream, int rows, const float* norm) {
  return stage_.ReduceAddNorm(stream, PartialOf(rows),
                              {.residual_in = act_.residual,
                               .weight = norm,
                               .eps = static_cast<float>(rank_.config.rms_norm_eps),
                               .residual_out = act_.residual,
                               .norm_out = act_.normed});
}

absl::Status DenseDecoder::Logits(Stream& stream, int outputs) {
  if (outputs == 0) return absl::OkStatus();
  const GatherRowsParams gather = {.x = act_.normed,
                                   .index = inputs_.output_rows,
                                   .hidden = rank_.config.hidden,
                                   .out = act_.outputs,
                                   .dtype = dtype_};
  MUSTER_RETURN_IF_ERROR(ops_.GatherRows(stream, gather, outputs));
  return ops_.Linear(stream,
                     {.x = act_.outputs,
                      .weights = weights_.lm_head.weights,
                      .y = act_.logits,
                      .y_dtype = DType::kFloat32},
                     outputs);
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
