#include "client/ctl/forward_pass.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace muster::ctl {
namespace {

// Of a request, for all but its hidden states.
constexpr uint64_t kRequestBytes = 4096;

std::string Name(const v1::LayerRange& layers) {
  return absl::StrCat(layers.begin(), ":", layers.end());
}

absl::Status CheckLayers(const v1::LayerRange& layers, const PassOptions& options,
                         const v1::ModelSpec& model) {
  if (layers.end() > model.layers()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layers ", Name(layers), " do not exist: ", model.name(), " has ", model.layers()));
  }
  if (layers.begin() > 0 && !options.hidden_states.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("layers ", Name(layers),
                                                   " begin above 0, where "
                                                   "tokens cannot enter: give the hidden states "
                                                   "that leave layer ",
                                                   layers.begin() - 1));
  }
  if (layers.end() < model.layers() && options.return_logits) {
    return absl::InvalidArgumentError(absl::StrCat("layers ", Name(layers),
                                                   " give no logits: only "
                                                   "the last of ",
                                                   model.layers(), " does"));
  }
  return absl::OkStatus();
}

absl::Status CheckHiddenStates(const FloatArray& states, const v1::ModelSpec& model) {
  if (states.shape.size() == 2 && states.shape[0] > 0 && states.shape[1] == model.hidden()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("hidden states of shape (", absl::StrJoin(states.shape, ", "),
                   ") do not fit: ", model.name(), " wants (tokens, ", model.hidden(), ")"));
}

// The requests of one pass, chunk by chunk.
class PassRun {
 public:
  PassRun(const InferenceClient& leader, const PassOptions& options,
          const v1::GetModelResponse& model, const v1::LayerRange& layers)
      : leader_(leader), options_(options), model_(model) {
    pass_.layers = layers;
    request_.set_client_id(options.client_id);
    v1::SequenceSlice& slice = *request_.add_slices();
    slice.set_sequence_id(options.sequence_id);
    if (options.layers.has_value()) *slice.mutable_layers() = layers;
    if (options.return_hidden_states) slice.set_return_hidden_states(layers.end());
    *slice.mutable_sampling() = options.sampling;
  }

  absl::StatusOr<Pass> Run() {
    const size_t total =
        options_.hidden_states ? options_.hidden_states->shape[0] : options_.token_ids.size();
    const size_t rows = RowsPerRequest();
    size_t done = 0;
    // Nothing at all is one empty request, which the leader refuses in its own words.
    do {
      const size_t count = std::min(rows, total - done);
      MUSTER_RETURN_IF_ERROR(RunChunk(done, count, done + count == total));
      done += count;
    } while (done < total);
    if (options_.return_hidden_states) {
      pass_.hidden_states.shape = {total, model_.model().hidden()};
    }
    return std::move(pass_);
  }

 private:
  size_t RowsPerRequest() const {
    size_t rows = std::max<uint32_t>(1, model_.max_rows_per_step());
    const uint64_t row_bytes = uint64_t{model_.model().hidden()} * sizeof(float);
    if (options_.hidden_states && model_.max_request_bytes() > kRequestBytes) {
      rows = std::min<size_t>(rows, (model_.max_request_bytes() - kRequestBytes) / row_bytes);
    }
    return std::max<size_t>(1, rows);
  }

  absl::Status RunChunk(size_t begin, size_t count, bool last) {
    v1::SequenceSlice& slice = *request_.mutable_slices(0);
    const bool answers = last && pass_.layers.end() == model_.model().layers();
    slice.set_first_position(options_.first_position + static_cast<uint32_t>(begin));
    if (options_.hidden_states) {
      const size_t hidden = model_.model().hidden();
      const float* rows = options_.hidden_states->values.data() + begin * hidden;
      slice.mutable_hidden_states()->Assign(rows, rows + count * hidden);
    } else {
      const uint32_t* tokens = options_.token_ids.data() + begin;
      slice.mutable_token_ids()->Assign(tokens, tokens + count);
    }
    slice.set_sample(answers);
    slice.set_top_n(answers ? options_.top_n : 0);
    slice.set_return_logits(answers && options_.return_logits);
    MUSTER_ASSIGN_OR_RETURN(const v1::ForwardResponse response, leader_.Forward(request_));
    // The sequence is lost with its epoch: another one must not continue it.
    request_.set_expected_epoch(response.epoch());
    return Take(response, count, answers);
  }

  absl::Status Take(const v1::ForwardResponse& response, size_t count, bool answers) {
    if (response.outputs_size() != 1) return absl::DataLossError("the answer has no output");
    const v1::SliceOutput& output = response.outputs(0);
    if (output.has_error()) {
      return absl::Status(static_cast<absl::StatusCode>(output.error().code()),
                          output.error().message());
    }
    const size_t wanted = options_.return_hidden_states ? count * model_.model().hidden() : 0;
    const size_t logits =
        answers && options_.return_logits ? size_t{model_.model().vocabulary()} : 0;
    const bool complete = static_cast<size_t>(output.hidden_states_size()) == wanted &&
                          static_cast<size_t>(output.logits_size()) == logits &&
                          output.has_sampled_token() == answers;
    if (!complete) return absl::DataLossError("the leader's answer lacks what was asked for");
    pass_.epoch = response.epoch();
    pass_.step = response.step();
    pass_.device_time += absl::Seconds(response.device_time().seconds()) +
                         absl::Nanoseconds(response.device_time().nanos());
    std::vector<float>& states = pass_.hidden_states.values;
    states.insert(states.end(), output.hidden_states().begin(), output.hidden_states().end());
    pass_.logits.assign(output.logits().begin(), output.logits().end());
    if (!answers) return absl::OkStatus();
    pass_.token = output.sampled_token();
    pass_.logprob = output.sampled_logprob();
    pass_.top.assign(output.top().begin(), output.top().end());
    return absl::OkStatus();
  }

  const InferenceClient& leader_;
  const PassOptions& options_;
  const v1::GetModelResponse& model_;
  v1::ForwardRequest request_;
  Pass pass_;
};

}  // namespace

absl::StatusOr<v1::LayerRange> ParseLayers(const std::string& text) {
  const std::vector<std::string> ends = absl::StrSplit(text, ':');
  uint32_t begin = 0, end = 0;
  const bool numbers = ends.size() == 2 && absl::SimpleAtoi(ends[0], &begin) &&
                       absl::SimpleAtoi(ends[1], &end) && begin < end;
  if (!numbers) {
    return absl::InvalidArgumentError(
        absl::StrCat("wants layers BEGIN:END, END not among them, like 0:15, not '", text, "'"));
  }
  v1::LayerRange layers;
  layers.set_begin(begin);
  layers.set_end(end);
  return layers;
}

absl::StatusOr<Pass> RunPass(const InferenceClient& leader, const PassOptions& options) {
  MUSTER_ASSIGN_OR_RETURN(const v1::GetModelResponse model, leader.GetModel());
  v1::LayerRange layers;
  layers.set_end(model.model().layers());
  if (options.layers.has_value()) layers = *options.layers;
  MUSTER_RETURN_IF_ERROR(CheckLayers(layers, options, model.model()));
  if (options.hidden_states.has_value()) {
    MUSTER_RETURN_IF_ERROR(CheckHiddenStates(*options.hidden_states, model.model()));
  }
  return PassRun(leader, options, model, layers).Run();
}

}  // namespace muster::ctl
