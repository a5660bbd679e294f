#include "client/ctl/generation.h"

#include <unistd.h>

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace muster::ctl {
namespace {

class Sequence {
 public:
  Sequence(const InferenceClient& leader, const GenerationOptions& options)
      : leader_(leader), options_(options) {
    request_.set_client_id(absl::StrCat("musterctl-", std::random_device{}(), "-", getpid()));
    request_.add_slices()->set_sequence_id("prompt");
  }

  ~Sequence() {
    v1::FreeSequencesRequest request;
    request.set_client_id(request_.client_id());
    request.add_sequence_ids("prompt");
    // The leader frees what is left when it must; nobody waits for this.
    leader_.FreeSequences(request).IgnoreError();
  }

  // Runs `tokens`; `last` samples after them.
  absl::StatusOr<v1::ForwardResponse> Run(const uint32_t* tokens, size_t count, bool last) {
    v1::SequenceSlice& slice = *request_.mutable_slices(0);
    slice.mutable_token_ids()->Assign(tokens, tokens + count);
    slice.set_first_position(position_);
    slice.set_sample(last);
    slice.set_top_n(last ? options_.top_n : 0);
    *slice.mutable_sampling() = options_.sampling;
    MUSTER_ASSIGN_OR_RETURN(v1::ForwardResponse response, leader_.Forward(request_));
    if (response.outputs_size() != 1 || (last && !response.outputs(0).has_sampled_token())) {
      return absl::DataLossError("the leader's answer lacks the sampled token");
    }
    position_ += static_cast<uint32_t>(count);
    // The sequence is lost with its epoch: another one must not continue it.
    request_.set_expected_epoch(response.epoch());
    return response;
  }

 private:
  const InferenceClient& leader_;
  const GenerationOptions& options_;
  v1::ForwardRequest request_;
  uint32_t position_ = 0;
};

GenerationStep StepOf(const v1::ForwardResponse& response) {
  const v1::SliceOutput& output = response.outputs(0);
  return {output.sampled_token(), {output.top().begin(), output.top().end()}};
}

}  // namespace

absl::StatusOr<Generation> Generate(const InferenceClient& leader, const GenerationOptions& options,
                                    const std::function<void(const GenerationStep&)>& on_step) {
  MUSTER_ASSIGN_OR_RETURN(const v1::GetModelResponse model, leader.GetModel());
  const auto& ends = model.model().eos_token_ids();
  Sequence sequence(leader, options);
  Generation generation;
  const absl::Time start = absl::Now();
  // An empty prompt is one empty chunk, which the leader refuses in its own words.
  const size_t rows = std::max<size_t>(1, model.max_rows_per_step());
  const std::vector<uint32_t>& prompt = options.prompt_tokens;
  v1::ForwardResponse response;
  size_t done = 0;
  do {
    const size_t count = std::min(rows, prompt.size() - done);
    const bool last = done + count == prompt.size();
    MUSTER_ASSIGN_OR_RETURN(response, sequence.Run(prompt.data() + done, count, last));
    done += count;
  } while (done < prompt.size());
  generation.epoch = response.epoch();
  const absl::Time first = absl::Now();
  generation.time_to_first_token = first - start;
  while (true) {
    generation.steps.push_back(StepOf(response));
    on_step(generation.steps.back());
    const uint32_t token = generation.steps.back().token;
    const bool ended = std::find(ends.begin(), ends.end(), token) != ends.end();
    if (ended && !options.ignore_eos) break;
    if (generation.steps.size() >= options.max_tokens) break;
    MUSTER_ASSIGN_OR_RETURN(response, sequence.Run(&token, 1, true));
  }
  generation.decode_time = absl::Now() - first;
  return generation;
}

}  // namespace muster::ctl
