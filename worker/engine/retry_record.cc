#include "worker/engine/retry_record.h"

#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/digest.h"

namespace muster {
namespace {

size_t BytesOf(const ForwardResult& result) {
  size_t bytes = sizeof(result);
  for (const SliceOutput& output : result.outputs) {
    bytes += sizeof(output) + output.top.size() * sizeof(TokenLogprob) +
             (output.logits.size() + output.hidden_states.size()) * sizeof(float) +
             output.error.message().size();
  }
  return bytes;
}

void Add(Digest& digest, const std::vector<float>& values) {
  digest.Add(absl::string_view(reinterpret_cast<const char*>(values.data()),
                               values.size() * sizeof(float)));
}

void Add(Digest& digest, const SequenceSlice& slice) {
  digest.Add(slice.sequence_id);
  digest.Add(absl::string_view(reinterpret_cast<const char*>(slice.token_ids.data()),
                               slice.token_ids.size() * sizeof(uint32_t)));
  Add(digest, slice.hidden_states);
  const LayerRange layers = slice.layers.value_or(LayerRange{-1, -1});
  const SamplingOptions& sampling = slice.sampling;
  const uint64_t kept =
      slice.return_hidden_states.has_value() ? uint64_t{*slice.return_hidden_states} + 1 : 0;
  for (const uint64_t value :
       {uint64_t{slice.first_position}, uint64_t{slice.sample}, uint64_t{slice.top_n},
        uint64_t{slice.return_logits}, kept, static_cast<uint64_t>(int64_t{layers.begin}),
        static_cast<uint64_t>(int64_t{layers.end}),
        uint64_t{std::bit_cast<uint32_t>(sampling.temperature)}, uint64_t{sampling.top_k},
        uint64_t{std::bit_cast<uint32_t>(sampling.top_p)}, sampling.seed}) {
    digest.Add(value);
  }
}

}  // namespace

uint64_t BodyDigest(const ForwardBatch& batch) {
  Digest digest;
  digest.Add(uint64_t{batch.expected_epoch.has_value()});
  digest.Add(batch.expected_epoch.value_or(Epoch()).value());
  for (const SequenceSlice& slice : batch.slices) Add(digest, slice);
  return digest.value();
}

std::string RetryRecord::KeyOf(const std::string& client, const std::string& request) {
  return absl::StrCat(client.size(), ":", client, request);
}

const RetryRecord::Answer* RetryRecord::Find(const std::string& client,
                                             const std::string& request) const {
  const auto found = answers_.find(KeyOf(client, request));
  return found == answers_.end() ? nullptr : &found->second;
}

void RetryRecord::Keep(const std::string& client, const std::string& request, Answer answer) {
  bytes_ += BytesOf(*answer.result);
  order_.push_back(KeyOf(client, request));
  answers_[order_.back()] = std::move(answer);
  while (order_.size() > limits_.answers || bytes_ > limits_.bytes) {
    const auto oldest = answers_.find(order_.front());
    bytes_ -= BytesOf(*oldest->second.result);
    answers_.erase(oldest);
    order_.pop_front();
  }
}

}  // namespace muster
