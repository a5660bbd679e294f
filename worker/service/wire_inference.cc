#include "worker/service/wire_inference.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/port_limits.h"
#include "base/status_macros.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"

namespace muster {
namespace {

constexpr int kMaxFreed = 1 << 16;

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = ErrorReason::kInvalidRequest});
}

SequenceSlice SliceFromWire(const v1::SequenceSlice& wire) {
  const v1::SamplingParameters& sampling = wire.sampling();
  SequenceSlice slice{.sequence_id = wire.sequence_id(),
                      .token_ids = {wire.token_ids().begin(), wire.token_ids().end()},
                      .first_position = wire.first_position(),
                      .sample = wire.sample(),
                      .top_n = wire.top_n(),
                      .sampling = {.temperature = sampling.temperature(),
                                   .top_k = sampling.top_k(),
                                   .top_p = sampling.has_top_p() ? sampling.top_p() : 1,
                                   .seed = sampling.seed()},
                      .hidden_states = {wire.hidden_states().begin(), wire.hidden_states().end()},
                      .return_logits = wire.return_logits()};
  if (wire.has_layers()) {
    // What no int holds is outside every model.
    constexpr uint32_t kMost = std::numeric_limits<int>::max();
    slice.layers = {static_cast<int>(std::min(wire.layers().begin(), kMost)),
                    static_cast<int>(std::min(wire.layers().end(), kMost))};
  }
  if (wire.has_return_hidden_states()) slice.return_hidden_states = wire.return_hidden_states();
  return slice;
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
  wire->mutable_logits()->Add(output.logits.begin(), output.logits.end());
  wire->mutable_hidden_states()->Add(output.hidden_states.begin(), output.hidden_states.end());
  if (!output.error.ok()) *wire->mutable_error() = ToRpcStatus(output.error);
}

}  // namespace

absl::Status CheckSlices(const v1::ForwardRequest& wire, const BatchLimits& limits) {
  if (wire.slices_size() <= limits.max_slices) return absl::OkStatus();
  return Invalid(absl::StrCat("the step has ", wire.slices_size(), " slices; it must have 1 to ",
                              limits.max_slices));
}

ForwardBatch FromWire(const v1::ForwardRequest& wire, std::string client) {
  ForwardBatch batch{.client_id = std::move(client), .request_id = wire.request_id()};
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
  wire->set_request_id(request.request_id());
  wire->set_epoch(result.epoch.value());
  wire->set_step(result.step.value());
  wire->set_bucket(static_cast<uint32_t>(result.bucket));
  *wire->mutable_queue_time() = ToWire(result.queue_time);
  *wire->mutable_relay_time() = ToWire(result.relay_time);
  *wire->mutable_device_time() = ToWire(result.device_time);
}

absl::StatusOr<FreeOrder> FromWire(const v1::FreeSequencesRequest& wire, std::string client) {
  if (wire.sequence_ids_size() > kMaxFreed) {
    return Invalid(absl::StrCat(wire.sequence_ids_size(), " sequences are to be freed; at most ",
                                kMaxFreed, " at once"));
  }
  if (wire.all() && wire.sequence_ids_size() > 0) {
    return Invalid("all sequences are to be freed, and some are named; it must be one of them");
  }
  FreeOrder order{.client_id = std::move(client),
                  .sequence_ids = {wire.sequence_ids().begin(), wire.sequence_ids().end()},
                  .all = wire.all()};
  if (wire.has_expected_epoch()) order.expected_epoch = Epoch(wire.expected_epoch());
  return order;
}

ForkOrder FromWire(const v1::ForkSequenceRequest& wire, std::string client) {
  ForkOrder order{.client_id = std::move(client),
                  .sequence_id = wire.sequence_id(),
                  .new_sequence_id = wire.new_sequence_id()};
  if (wire.has_tokens()) order.tokens = wire.tokens();
  if (wire.has_expected_epoch()) order.expected_epoch = Epoch(wire.expected_epoch());
  return order;
}

void ToWire(const Forked& forked, v1::ForkSequenceResponse* wire) {
  wire->set_epoch(forked.epoch.value());
  wire->set_tokens(static_cast<uint32_t>(forked.tokens));
  wire->set_shared_blocks(static_cast<uint64_t>(forked.shared_blocks));
}

void CapacityToWire(const ServingEpoch& epoch, v1::Capacity* wire) {
  const Capacity capacity = epoch.engine().capacity();
  wire->set_epoch(epoch.engine().queue().epoch().value());
  wire->set_total_blocks(static_cast<uint64_t>(capacity.total_blocks));
  wire->set_free_blocks(static_cast<uint64_t>(capacity.free_blocks));
  wire->set_block_tokens(static_cast<uint32_t>(epoch.captured.block_tokens));
  wire->set_sequences(static_cast<uint32_t>(capacity.sequences));
  wire->set_max_sequences(static_cast<uint32_t>(capacity.max_sequences));
  wire->set_max_prompt_tokens(static_cast<uint64_t>(capacity.max_prompt_tokens));
  wire->set_queued_requests(static_cast<uint32_t>(epoch.engine().queue().waiting()));
  wire->set_not_rebuildable_sequences(static_cast<uint32_t>(capacity.not_rebuildable));
}

void ModelToWire(const ServingEpoch& epoch, v1::GetModelResponse* wire) {
  const BatchLimits& limits = epoch.engine().options().limits;
  *wire->mutable_model() = ToWire(epoch.model);
  wire->set_epoch(epoch.engine().queue().epoch().value());
  wire->set_max_rows_per_step(static_cast<uint32_t>(limits.max_rows));
  wire->set_max_sequences_per_step(static_cast<uint32_t>(limits.max_slices));
  wire->set_max_sequences(static_cast<uint32_t>(epoch.engine().capacity().max_sequences));
  wire->set_max_top_n(BatchLimits::kMaxTopN);
  wire->set_block_tokens(static_cast<uint32_t>(epoch.captured.block_tokens));
  const RequestQueue::Options& queue = epoch.engine().options().queue;
  wire->set_max_queued_requests(static_cast<uint32_t>(queue.max_waiting));
  wire->set_max_request_bytes(kMaxMessageBytes);
  *wire->mutable_client_lease() = ToWire(queue.client_lease);
  for (int bucket : epoch.captured.buckets) wire->add_buckets(static_cast<uint32_t>(bucket));
}

}  // namespace muster
