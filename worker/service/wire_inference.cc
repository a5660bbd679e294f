#include "worker/service/wire_inference.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/wire_topology.h"

namespace muster {
namespace {

constexpr int kMaxFreed = 1 << 16;

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = ErrorReason::kInvalidRequest});
}

absl::Status CheckId(const char* what, const std::string& id) {
  if (!id.empty() && id.size() <= BatchLimits::kMaxIdBytes) return absl::OkStatus();
  return Invalid(absl::StrCat(what, " has ", id.size(), " bytes; it must have 1 to ",
                              BatchLimits::kMaxIdBytes));
}

SequenceSlice SliceFromWire(const v1::SequenceSlice& wire) {
  const v1::SamplingParameters& sampling = wire.sampling();
  return {.sequence_id = wire.sequence_id(),
          .token_ids = {wire.token_ids().begin(), wire.token_ids().end()},
          .first_position = wire.first_position(),
          .sample = wire.sample(),
          .top_n = wire.top_n(),
          .sampling = {.temperature = sampling.temperature(),
                       .top_k = sampling.top_k(),
                       .top_p = sampling.has_top_p() ? sampling.top_p() : 1,
                       .seed = sampling.seed()}};
}

void OutputToWire(const SliceOutput& output, v1::SliceOutput* wire) {
  if (output.sampled.has_value()) {
    wire->set_sampled_token(static_cast<uint32_t>(output.sampled->token));
    wire->set_sampled_logprob(output.sampled->logprob);
  }
  for (const TokenLogprob& likely : output.top) {
    v1::TokenLogprob* top = wire->add_top();
    top->set_token_id(static_cast<uint32_t>(likely.token));
    top->set_logprob(likely.logprob);
  }
}

}  // namespace

absl::Status CheckSlices(const v1::ForwardRequest& wire, const BatchLimits& limits) {
  if (wire.slices_size() <= limits.max_slices) return absl::OkStatus();
  return Invalid(absl::StrCat("the step has ", wire.slices_size(), " slices; it must have 1 to ",
                              limits.max_slices));
}

ForwardBatch FromWire(const v1::ForwardRequest& wire) {
  ForwardBatch batch{.client_id = wire.client_id()};
  if (wire.has_expected_epoch()) batch.expected_epoch = Epoch(wire.expected_epoch());
  batch.slices.reserve(static_cast<size_t>(wire.slices_size()));
  for (const v1::SequenceSlice& slice : wire.slices()) {
    batch.slices.push_back(SliceFromWire(slice));
  }
  return batch;
}

void ToWire(const ForwardResult& result, const v1::ForwardRequest& request,
            v1::ForwardResponse* wire) {
  for (size_t i = 0; i < result.outputs.size(); ++i) {
    v1::SliceOutput* output = wire->add_outputs();
    output->set_sequence_id(request.slices(static_cast<int>(i)).sequence_id());
    OutputToWire(result.outputs[i], output);
  }
  wire->set_epoch(result.epoch.value());
  wire->set_step(result.step.value());
  wire->set_bucket(static_cast<uint32_t>(result.bucket));
  *wire->mutable_queue_time() = ToWire(result.queue_time);
  *wire->mutable_relay_time() = ToWire(result.relay_time);
  *wire->mutable_device_time() = ToWire(result.device_time);
}

absl::StatusOr<std::vector<std::string>> SequencesFromWire(const v1::FreeSequencesRequest& wire) {
  MUSTER_RETURN_IF_ERROR(CheckId("the client id", wire.client_id()));
  if (wire.sequence_ids_size() > kMaxFreed) {
    return Invalid(absl::StrCat(wire.sequence_ids_size(), " sequences are to be freed; at most ",
                                kMaxFreed, " at once"));
  }
  for (const std::string& id : wire.sequence_ids()) {
    MUSTER_RETURN_IF_ERROR(CheckId("a sequence id", id));
  }
  return std::vector<std::string>(wire.sequence_ids().begin(), wire.sequence_ids().end());
}

void CapacityToWire(const ServingEpoch& epoch, v1::Capacity* wire) {
  const Capacity capacity = epoch.engine().capacity();
  wire->set_epoch(epoch.context->topology().epoch.value());
  wire->set_total_blocks(static_cast<uint64_t>(capacity.total_blocks));
  wire->set_free_blocks(static_cast<uint64_t>(capacity.free_blocks));
  wire->set_block_tokens(static_cast<uint32_t>(epoch.captured.block_tokens));
  wire->set_sequences(static_cast<uint32_t>(capacity.sequences));
  wire->set_max_prompt_tokens(static_cast<uint64_t>(capacity.max_prompt_tokens));
}

void ModelToWire(const ServingEpoch& epoch, v1::GetModelResponse* wire) {
  const BatchLimits& limits = epoch.engine().options().limits;
  *wire->mutable_model() = ToWire(epoch.context->model().spec);
  wire->set_epoch(epoch.context->topology().epoch.value());
  wire->set_max_rows_per_step(static_cast<uint32_t>(limits.max_rows));
  wire->set_max_sequences_per_step(static_cast<uint32_t>(limits.max_slices));
  for (int bucket : epoch.captured.buckets) wire->add_buckets(static_cast<uint32_t>(bucket));
}

}  // namespace muster
