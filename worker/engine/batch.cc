#include "worker/engine/batch.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

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

absl::Status CheckId(const char* what, const std::string& id) {
  if (!id.empty() && id.size() <= BatchLimits::kMaxIdBytes) return absl::OkStatus();
  return Invalid(absl::StrCat(what, " has ", id.size(), " bytes; it must have 1 to ",
                              BatchLimits::kMaxIdBytes));
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

absl::Status CheckTokens(const SequenceSlice& slice, const BatchLimits& limits) {
  if (slice.token_ids.empty()) {
    return Invalid(absl::StrCat("sequence ", Quoted(slice.sequence_id),
                                ": the slice has no token; it needs at least one"));
  }
  const auto outside =
      std::find_if(slice.token_ids.begin(), slice.token_ids.end(),
                   [&](uint32_t id) { return id >= static_cast<uint32_t>(limits.vocabulary); });
  if (outside != slice.token_ids.end()) {
    return Invalid(absl::StrCat("sequence ", Quoted(slice.sequence_id), ": token id ", *outside,
                                " is outside the vocabulary of ", limits.vocabulary));
  }
  const uint64_t end = uint64_t{slice.first_position} + slice.token_ids.size();
  if (end > static_cast<uint64_t>(limits.max_positions)) {
    return MakeError(absl::StatusCode::kOutOfRange,
                     absl::StrCat("sequence ", Quoted(slice.sequence_id), " would have ", end,
                                  " tokens; the model's context is ", limits.max_positions),
                     {.reason = ErrorReason::kContextExceeded});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckBatch(const ForwardBatch& batch, const BatchLimits& limits) {
  MUSTER_RETURN_IF_ERROR(CheckId("the client id", batch.client_id));
  if (batch.slices.empty() || batch.slices.size() > static_cast<size_t>(limits.max_slices)) {
    return Invalid(absl::StrCat("the step has ", batch.slices.size(), " slices; it must have 1 to ",
                                limits.max_slices));
  }
  std::unordered_set<std::string> ids;
  uint64_t rows = 0;
  for (const SequenceSlice& slice : batch.slices) {
    MUSTER_RETURN_IF_ERROR(CheckId("a sequence id", slice.sequence_id));
    if (!ids.insert(slice.sequence_id).second) {
      return Invalid(
          absl::StrCat("sequence ", Quoted(slice.sequence_id), " stands twice in the step"));
    }
    MUSTER_RETURN_IF_ERROR(CheckTokens(slice, limits));
    MUSTER_RETURN_IF_ERROR(CheckSampling(slice));
    rows += slice.token_ids.size();
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
  if (!slice.sample && slice.top_n == 0) return std::nullopt;
  StepOutput output{.row = row, .candidates = static_cast<int32_t>(slice.top_n)};
  if (!slice.sample) return output;
  const SamplingOptions& sampling = slice.sampling;
  if (sampling.temperature == 0) {
    output.candidates = std::max(output.candidates, 1);
    return output;
  }
  output.inverse_temperature = InverseTemperature(ParamsOf(slice, /*position=*/0));
  if (sampling.top_k == 0 || sampling.top_k > static_cast<uint32_t>(Step::kMaxCandidates)) {
    output.whole = 1;
    output.candidates = 0;
  } else {
    output.candidates = std::max(output.candidates, static_cast<int32_t>(sampling.top_k));
  }
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
