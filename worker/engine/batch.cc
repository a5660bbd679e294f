#include "worker/engine/batch.h"

#include <algorithm>
#include <cmath>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = ErrorReason::kInvalidRequest});
}

absl::Status CheckSampling(const SequenceSlice& slice) {
  const SamplingOptions& sampling = slice.sampling;
  const auto refuse = [&](const char* what, double value, const char* range) {
    return Invalid(absl::StrCat("sequence ", Quoted(slice.sequence_id), ": ", what, " ", value,
                                " must be ", range));
  };
  if (!std::isfinite(sampling.temperature) || sampling.temperature < 0) {
    return refuse("temperature", sampling.temperature, "a finite number of at least 0");
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return refuse("top_p", sampling.top_p, "above 0 and at most 1");
  }
  if (slice.top_n > BatchLimits::kMaxTopN) {
    return refuse("top_n", slice.top_n, "at most 64");
  }
  return absl::OkStatus();
}

absl::Status InvalidSlice(const SequenceSlice& slice, absl::string_view why) {
  return Invalid(absl::StrCat("sequence ", Quoted(slice.sequence_id), ": ", why));
}

absl::Status CheckLayers(const SequenceSlice& slice, const BatchLimits& limits) {
  const LayerRange layers = LayersOf(slice, limits);
  if (slice.layers.has_value() &&
      (layers.begin < 0 || layers.begin >= layers.end || layers.end > limits.layers)) {
    return InvalidSlice(slice, absl::StrCat("layers ", layers.begin, " to ", layers.end,
                                            " are no range of the model's ", limits.layers));
  }
  if (layers.begin > 0 && slice.hidden_states.empty()) {
    return InvalidSlice(slice, absl::StrCat("layer ", layers.begin,
                                            " takes hidden states; only layer 0 takes token ids"));
  }
  if (layers.end < limits.layers && (slice.sample || slice.top_n > 0 || slice.return_logits)) {
    return InvalidSlice(
        slice, absl::StrCat("tokens and logits come from the last layer, and layers ", layers.begin,
                            " to ", layers.end, " of ", limits.layers, " are to run"));
  }
  const int64_t kept = slice.return_hidden_states.value_or(layers.begin);
  if (kept < layers.begin || kept > layers.end) {
    return InvalidSlice(slice,
                        absl::StrCat("the hidden states of layer ", kept, " are not among layers ",
                                     layers.begin, " to ", layers.end));
  }
  return absl::OkStatus();
}

absl::Status CheckHiddenStates(const SequenceSlice& slice, const BatchLimits& limits) {
  if (!slice.token_ids.empty()) {
    return InvalidSlice(slice, "the slice has token ids and hidden states; it needs one of them");
  }
  if (slice.hidden_states.size() % static_cast<size_t>(limits.hidden) != 0) {
    return InvalidSlice(slice,
                        absl::StrCat(slice.hidden_states.size(),
                                     " numbers are no whole rows of hidden size ", limits.hidden));
  }
  const auto odd = std::find_if(slice.hidden_states.begin(), slice.hidden_states.end(),
                                [](float value) { return !std::isfinite(value); });
  if (odd == slice.hidden_states.end()) return absl::OkStatus();
  const auto index = odd - slice.hidden_states.begin();
  return InvalidSlice(
      slice, absl::StrCat("hidden state ", index % limits.hidden, " of row ", index / limits.hidden,
                          " is ", *odd, ", which is not finite"));
}

absl::Status CheckTokens(const SequenceSlice& slice, const BatchLimits& limits) {
  if (slice.token_ids.empty()) {
    return InvalidSlice(slice, "the slice has no token; it needs at least one");
  }
  const auto outside =
      std::find_if(slice.token_ids.begin(), slice.token_ids.end(),
                   [&](uint32_t id) { return id >= static_cast<uint32_t>(limits.vocabulary); });
  if (outside == slice.token_ids.end()) return absl::OkStatus();
  return InvalidSlice(slice, absl::StrCat("token id ", *outside, " is outside the vocabulary of ",
                                          limits.vocabulary));
}

absl::Status CheckSlice(const SequenceSlice& slice, const BatchLimits& limits) {
  MUSTER_RETURN_IF_ERROR(CheckId("a sequence id", slice.sequence_id));
  MUSTER_RETURN_IF_ERROR(slice.hidden_states.empty() ? CheckTokens(slice, limits)
                                                     : CheckHiddenStates(slice, limits));
  MUSTER_RETURN_IF_ERROR(CheckLayers(slice, limits));
  MUSTER_RETURN_IF_ERROR(CheckSampling(slice));
  const uint64_t end =
      uint64_t{slice.first_position} + static_cast<uint64_t>(PositionsOf(slice, limits));
  if (end <= static_cast<uint64_t>(limits.max_positions)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kOutOfRange,
                   absl::StrCat("sequence ", Quoted(slice.sequence_id), " would have ", end,
                                " tokens; the model's context is ", limits.max_positions),
                   {.reason = ErrorReason::kContextExceeded});
}

}  // namespace

absl::Status CheckId(absl::string_view what, absl::string_view id) {
  if (!id.empty() && id.size() <= BatchLimits::kMaxIdBytes) return absl::OkStatus();
  return Invalid(absl::StrCat(what, " has ", id.size(), " bytes; it must have 1 to ",
                              BatchLimits::kMaxIdBytes));
}

absl::Status CheckBatch(const ForwardBatch& batch, const BatchLimits& limits) {
  MUSTER_RETURN_IF_ERROR(CheckId("the client id", batch.client_id));
  if (!batch.request_id.empty()) {
    MUSTER_RETURN_IF_ERROR(CheckId("the request id", batch.request_id));
  }
  if (batch.slices.empty() || batch.slices.size() > static_cast<size_t>(limits.max_slices)) {
    return Invalid(absl::StrCat("the step has ", batch.slices.size(), " slices; it must have 1 to ",
                                limits.max_slices));
  }
  absl::flat_hash_set<absl::string_view> ids;
  uint64_t rows = 0;
  for (const SequenceSlice& slice : batch.slices) {
    MUSTER_RETURN_IF_ERROR(CheckSlice(slice, limits));
    if (batch.slices.size() > 1 && !ids.insert(slice.sequence_id).second) {
      return Invalid(
          absl::StrCat("sequence ", Quoted(slice.sequence_id), " stands twice in the step"));
    }
    rows += static_cast<uint64_t>(PositionsOf(slice, limits));
  }
  if (rows > static_cast<uint64_t>(limits.max_rows)) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     absl::StrCat("the step has ", rows, " new tokens; at most ", limits.max_rows,
                                  " fit one step. Send longer prompts in pieces"),
                     {.reason = ErrorReason::kInvalidRequest});
  }
  return absl::OkStatus();
}

std::optional<StepOutput> OutputOf(const SequenceSlice& slice, int row) {
  if (!slice.sample && slice.top_n == 0 && !slice.return_logits) return std::nullopt;
  const SamplingParams params = ParamsOf(slice, /*position=*/0);
  const float inverse_temperature = slice.sample ? InverseTemperature(params) : 1;
  StepOutput output{.row = row, .inverse_temperature = inverse_temperature};
  if (slice.return_logits) {
    output.kind = OutputKind::kWhole;
    return output;
  }
  output.candidates = static_cast<int32_t>(slice.top_n);
  if (!slice.sample) return output;
  if (DrawsFromAll(params)) {
    output.kind = OutputKind::kDraw;
    output.seed = params.seed;
    return output;
  }
  if (IsGreedy(params)) {
    output.candidates = std::max(output.candidates, 1);
    return output;
  }
  output.kind = OutputKind::kFiltered;
  output.top_k = slice.sampling.top_k;
  output.top_p = slice.sampling.top_p;
  const int64_t enough = params.top_k == 0 ? Step::kMaxCandidates : params.top_k;
  output.candidates = std::max(
      output.candidates, static_cast<int32_t>(std::min<int64_t>(enough, Step::kMaxCandidates)));
  return output;
}

SamplingParams ParamsOf(const SequenceSlice& slice, int64_t position) {
  return {.temperature = slice.sampling.temperature,
          .top_k = slice.sampling.top_k,
          .top_p = slice.sampling.top_p,
          .seed = slice.sampling.seed,
          .position = position};
}

std::string Quoted(absl::string_view id) {
  constexpr size_t kShown = 40;
  return absl::StrCat("'", absl::CHexEscape(id.substr(0, kShown)), id.size() > kShown ? "..." : "",
                      "'");
}

}  // namespace muster
