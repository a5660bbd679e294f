#include "client/ctl/bench_work.h"

#include <algorithm>

namespace muster::ctl {
namespace {

constexpr char kWeightsTag[] = "weights";

uint64_t ElementBytes(const v1::ModelSpec& model) { return model.dtype() == "float32" ? 4 : 2; }

// Elements of the matrices of all layers.
uint64_t LayerElements(const v1::ModelSpec& model) {
  const uint64_t hidden = model.hidden();
  const uint64_t attention =
      hidden * model.head_dim() * (2 * uint64_t{model.heads()} + 2 * uint64_t{model.kv_heads()});
  return model.layers() * (attention + 3 * hidden * model.ffn());
}

uint64_t VocabularyElements(const v1::ModelSpec& model) {
  return uint64_t{model.vocabulary()} * model.hidden();
}

// True when the model has an embedding beside its output matrix. The spec does not say; its size
// does.
bool HasOwnEmbedding(const v1::ModelSpec& model) {
  const uint64_t elements = model.weight_bytes() / ElementBytes(model);
  return elements > LayerElements(model) + VocabularyElements(model) * 3 / 2;
}

uint64_t HeldWeightBytes(const v1::ModelSpec& model, const v1::ReplicaStatus& replica) {
  uint64_t bytes = 0;
  for (const auto& ledger : replica.ledgers()) {
    for (const auto& entry : ledger.entries()) {
      if (entry.tag() == kWeightsTag) bytes += entry.bytes();
    }
  }
  return bytes == 0 ? model.weight_bytes() : bytes;
}

}  // namespace

BenchWork::BenchWork(const v1::ModelSpec& model, const v1::ReplicaStatus& replica)
    : model_(model), weight_bytes_(HeldWeightBytes(model, replica)) {
  if (HasOwnEmbedding(model)) {
    weight_bytes_ -= std::min(weight_bytes_, VocabularyElements(model) * ElementBytes(model));
  }
  // Where there are fewer KV heads than ranks to split them over, several ranks read the same one.
  const uint64_t heads = std::max(model.kv_heads(), replica.topology().config().tp());
  kv_token_bytes_ = 2 * uint64_t{model.layers()} * heads * model.head_dim() * ElementBytes(model);
}

StepWork BenchWork::Decode(uint64_t sequences, uint64_t context) const {
  const uint64_t window = model_.sliding_window();
  const uint64_t seen = window == 0 ? context : std::min(context, window);
  return {static_cast<double>(weight_bytes_ + sequences * seen * kv_token_bytes_),
          Flops(sequences, sequences, static_cast<double>(sequences) * static_cast<double>(seen))};
}

StepWork BenchWork::Prefill(uint64_t tokens) const {
  const uint64_t window = model_.sliding_window() == 0 ? tokens : model_.sliding_window();
  const uint64_t full = std::min(tokens, window);
  // Each token attends to those before it, as far as the window goes.
  const double pairs = 0.5 * static_cast<double>(full) * static_cast<double>(full + 1) +
                       static_cast<double>(tokens - full) * static_cast<double>(window);
  return {static_cast<double>(weight_bytes_), Flops(tokens, 1, pairs)};
}

double BenchWork::Flops(uint64_t rows, uint64_t outputs, double pairs) const {
  const double per_pair = 4.0 * model_.layers() * model_.heads() * model_.head_dim();
  return 2.0 * static_cast<double>(LayerElements(model_)) * static_cast<double>(rows) +
         2.0 * static_cast<double>(VocabularyElements(model_)) * static_cast<double>(outputs) +
         per_pair * pairs;
}

}  // namespace muster::ctl
