#include "client/ctl/bench_run.h"

#include <unistd.h>

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

constexpr uint32_t kWarmUps = 2;
// Steps after which sequences begin anew, so that their context stays what was asked for.
constexpr uint32_t kStepsPerFill = 64;
constexpr uint32_t kPrompts[] = {64, 256};
// A prompt takes many times what a token does.
constexpr uint32_t kStepsPerPrompt = 5;
constexpr uint32_t kLeastPrompts = 3;

absl::Duration DeviceTime(const v1::ForwardResponse& response) {
  return absl::Seconds(response.device_time().seconds()) +
         absl::Nanoseconds(response.device_time().nanos());
}

absl::Duration Median(std::vector<absl::Duration> times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// Ascending and each once, none above `most`.
std::vector<uint32_t> Sizes(std::vector<uint32_t> sizes, uint32_t most) {
  sizes.erase(std::remove_if(sizes.begin(), sizes.end(),
                             [most](uint32_t size) { return size == 0 || size > most; }),
              sizes.end());
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

BenchOptions Complete(BenchOptions options, const v1::GetModelResponse& model) {
  const uint32_t rows = model.max_rows_per_step();
  if (options.batches.empty())
    options.batches.assign(model.buckets().begin(), model.buckets().end());
  if (options.prompts.empty()) {
    options.prompts.assign(std::begin(kPrompts), std::end(kPrompts));
    options.prompts.push_back(std::min(rows, model.model().max_positions()));
  }
  options.batches = Sizes(options.batches, std::min(rows, model.max_sequences_per_step()));
  options.prompts = Sizes(options.prompts, std::min(rows, model.model().max_positions()));
  return options;
}

}  // namespace

BenchRun::BenchRun(const InferenceClient& leader, const v1::GetModelResponse& model,
                   BenchOptions options, std::function<void(absl::string_view)> tell)
    : leader_(leader),
      model_(model),
      options_(Complete(std::move(options), model)),
      tell_(std::move(tell)),
      client_id_(absl::StrCat("musterctl-bench-", std::random_device{}(), "-", getpid())) {}

absl::StatusOr<BenchSteps> BenchRun::Run() {
  if (options_.context >= model_.model().max_positions()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a context of ", options_.context, " leaves no room for a token: ", model_.model().name(),
        " has ", model_.model().max_positions(), " positions"));
  }
  BenchSteps steps;
  for (const uint32_t batch : options_.batches) {
    tell_(absl::StrCat("decode ", Count(batch, "sequence")));
    MUSTER_ASSIGN_OR_RETURN(steps.decode.emplace_back(), Try(batch, &BenchRun::Decode));
  }
  for (const uint32_t tokens : options_.prompts) {
    tell_(absl::StrCat("prefill ", Count(tokens, "token")));
    MUSTER_ASSIGN_OR_RETURN(steps.prefill.emplace_back(), Try(tokens, &BenchRun::Prefill));
  }
  steps.epoch = epoch_;
  return steps;
}

absl::StatusOr<BenchStep> BenchRun::Try(uint32_t size,
                                        absl::StatusOr<BenchStep> (BenchRun::*step)(uint32_t)) {
  auto result = (this->*step)(size);
  Free();
  if (!absl::IsResourceExhausted(result.status())) return result;
  return BenchStep{.size = size, .left_out = std::string(result.status().message())};
}

absl::StatusOr<BenchStep> BenchRun::Decode(uint32_t batch) {
  BenchStep step{.size = batch};
  std::vector<absl::Duration> times;
  const uint32_t room = model_.model().max_positions() - options_.context;
  const uint32_t steps_per_fill = std::min(kStepsPerFill, room);
  for (uint32_t i = 0; i < kWarmUps + options_.repetitions; ++i) {
    if (i % steps_per_fill == 0) {
      Free();
      MUSTER_RETURN_IF_ERROR(Fill(batch, options_.context));
    }
    v1::ForwardRequest request;
    for (uint32_t sequence = 0; sequence < batch; ++sequence) {
      AddSlice(request, sequence, 1)->set_sample(true);
    }
    MUSTER_ASSIGN_OR_RETURN(const v1::ForwardResponse response, Forward(request));
    if (i < kWarmUps) continue;
    times.push_back(DeviceTime(response));
    step.bucket = response.bucket();
    step.context += static_cast<double>(lengths_[0]) / options_.repetitions;
  }
  step.device_time = Median(std::move(times));
  return step;
}

absl::StatusOr<BenchStep> BenchRun::Prefill(uint32_t tokens) {
  BenchStep step{.size = tokens};
  std::vector<absl::Duration> times;
  const uint32_t rounds = std::max(kLeastPrompts, options_.repetitions / kStepsPerPrompt);
  for (uint32_t i = 0; i < 1 + rounds; ++i) {
    lengths_.assign(1, 0);
    v1::ForwardRequest request;
    AddSlice(request, 0, tokens)->set_sample(true);
    MUSTER_ASSIGN_OR_RETURN(const v1::ForwardResponse response, Forward(request));
    step.bucket = response.bucket();
    if (i > 0) times.push_back(DeviceTime(response));
    Free();
  }
  step.device_time = Median(std::move(times));
  return step;
}

absl::Status BenchRun::Fill(uint32_t count, uint32_t tokens) {
  lengths_.assign(count, 0);
  const auto unfilled = [&] {
    return std::find_if(lengths_.begin(), lengths_.end(),
                        [tokens](uint32_t length) { return length < tokens; });
  };
  while (unfilled() != lengths_.end()) {
    v1::ForwardRequest request;
    uint32_t rows = model_.max_rows_per_step();
    for (auto it = unfilled(); it != lengths_.end() && rows > 0; ++it) {
      const uint32_t taken = std::min(rows, tokens - *it);
      AddSlice(request, static_cast<uint32_t>(it - lengths_.begin()), taken);
      rows -= taken;
    }
    MUSTER_RETURN_IF_ERROR(Forward(request).status());
  }
  return absl::OkStatus();
}

v1::SequenceSlice* BenchRun::AddSlice(v1::ForwardRequest& request, uint32_t sequence,
                                      uint32_t tokens) {
  uint32_t& length = lengths_[sequence];
  v1::SequenceSlice* slice = request.add_slices();
  slice->set_sequence_id(absl::StrCat(sequence));
  slice->set_first_position(length);
  for (uint32_t i = 0; i < tokens; ++i) {
    // Different from sequence to sequence, and nothing that means anything.
    slice->add_token_ids((length + i) * 7919u % model_.model().vocabulary());
  }
  length += tokens;
  return slice;
}

absl::StatusOr<v1::ForwardResponse> BenchRun::Forward(v1::ForwardRequest& request) {
  if (stopped_) return absl::CancelledError("interrupted");
  request.set_client_id(client_id_);
  if (epoch_ != 0) request.set_expected_epoch(epoch_);
  MUSTER_ASSIGN_OR_RETURN(v1::ForwardResponse response, leader_.Forward(request));
  epoch_ = response.epoch();
  return response;
}

void BenchRun::FreeThrough(const InferenceClient& leader) const {
  v1::FreeSequencesRequest request;
  request.set_client_id(client_id_);
  request.set_all(true);
  // The lease ends what cannot be freed.
  leader.FreeSequences(request).IgnoreError();
}

}  // namespace muster::ctl
