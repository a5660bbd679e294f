#include "worker/engine/sampler.h"

#include <algorithm>
#include <cstring>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "worker/model/rank_shape.h"

namespace muster {
namespace {

// Bytes that one rank sends at most in one gather.
size_t MaxSendBytes(const Sampler::Options& options, int stage_size) {
  const size_t row = 64 + Step::kMaxCandidates * sizeof(Candidate);
  const size_t whole = ShardOf(options.vocabulary, stage_size, 0).size() * sizeof(float);
  return std::max(options.max_outputs * row, whole);
}

absl::Status CannotSample(const SequenceSlice& slice, const char* why) {
  return MakeError(
      absl::StatusCode::kInternal,
      absl::StrCat("sequence ", Quoted(slice.sequence_id), " cannot be sampled: ", why),
      {.reason = ErrorReason::kCannotSample, .kv_written = true});
}

}  // namespace

CollectiveUse Sampler::GatherUse(const Options& options, int stage_size) {
  return CollectiveUse::AllGather(GroupKind::kStage, MaxSendBytes(options, stage_size));
}

Sampler::Sampler(const Options& options, const Parts& parts)
    : options_(options),
      stage_(parts.stage),
      ops_(parts.ops),
      device_(parts.device),
      size_(stage_.group().size()),
      shard_begin_(ShardOf(options.vocabulary, size_, stage_.group().rank().value()).begin),
      shard_size_(ShardOf(options.vocabulary, size_, stage_.group().rank().value()).size()),
      longest_shard_(ShardOf(options.vocabulary, size_, 0).size()) {}

absl::StatusOr<std::unique_ptr<Sampler>> Sampler::Create(const Options& options,
                                                         const Parts& parts) {
  static_assert(sizeof(Summary) <= 64 && sizeof(Summary) % 8 == 0, "MaxSendBytes allows 64");
  auto sampler = absl::WrapUnique(new Sampler(options, parts));
  const size_t bytes = MaxSendBytes(options, sampler->size_);
  const size_t all = bytes * static_cast<size_t>(sampler->size_);
  MUSTER_ASSIGN_OR_RETURN(sampler->send_, parts.device.Allocate(bytes, "sampling", parts.ledger));
  MUSTER_ASSIGN_OR_RETURN(sampler->gathered_, parts.device.Allocate(all, "sampling", parts.ledger));
  MUSTER_ASSIGN_OR_RETURN(sampler->received_,
                          parts.device.AllocateHost(all, "sampling", parts.ledger));
  sampler->shards_.reserve(options.max_outputs);
  return sampler;
}

absl::Status Sampler::Gather(Stream& stream, const Step& step, const float* logits) {
  if (step.outputs.empty()) return absl::OkStatus();
  // Whole logits first: the candidates of all ranks stay in received_.
  MUSTER_RETURN_IF_ERROR(GatherWhole(stream, step, logits));
  return GatherCandidates(stream, step, logits);
}

absl::Status Sampler::GatherWhole(Stream& stream, const Step& step, const float* logits) {
  whole_.clear();
  for (size_t i = 0; i < step.outputs.size(); ++i) {
    if (step.outputs[i].whole == 0) continue;
    MUSTER_RETURN_IF_ERROR(
        device_.Copy(stream, send_.data(), logits + i * shard_size_, shard_size_ * sizeof(float)));
    MUSTER_RETURN_IF_ERROR(GatherToHost(stream, send_.data(), longest_shard_ * sizeof(float)));
    if (stage_.group().rank() != GroupRank(0)) continue;
    for (int rank = 0; rank < size_; ++rank) {
      const float* shard = received_.as<float>() + int64_t{rank} * longest_shard_;
      whole_.insert(whole_.end(), shard, shard + ShardOf(options_.vocabulary, size_, rank).size());
    }
  }
  return absl::OkStatus();
}

absl::Status Sampler::GatherCandidates(Stream& stream, const Step& step, const float* logits) {
  candidate_bytes_ = 0;
  shards_.clear();
  for (size_t i = 0; i < step.outputs.size(); ++i) {
    const StepOutput& output = step.outputs[i];
    if (output.whole != 0) continue;
    shards_.push_back(
        TopKOf(output, logits + i * shard_size_, send_.as<std::byte>() + candidate_bytes_));
    candidate_bytes_ += BytesOf(output);
  }
  if (candidate_bytes_ == 0) return absl::OkStatus();
  MUSTER_RETURN_IF_ERROR(ops_.ShardTopK(stream, shards_));
  return GatherToHost(stream, send_.data(), candidate_bytes_);
}

absl::Status Sampler::GatherToHost(Stream& stream, const void* send, size_t bytes) {
  MUSTER_RETURN_IF_ERROR(stage_.AllGather(stream, send, gathered_.data(), bytes));
  MUSTER_RETURN_IF_ERROR(
      device_.Copy(stream, received_.data(), gathered_.data(), bytes * static_cast<size_t>(size_)));
  return stream.Synchronize();
}

ShardTopKParams Sampler::TopKOf(const StepOutput& output, const float* logits,
                                std::byte* to) const {
  auto* const summary = reinterpret_cast<Summary*>(to);
  return {.logits = logits,
          .vocab_local = shard_size_,
          .vocab_begin = shard_begin_,
          .k = output.candidates,
          .inverse_temperature = output.inverse_temperature,
          .candidates = reinterpret_cast<Candidate*>(to + sizeof(Summary)),
          .candidate_count = &summary->candidates,
          .summary = &summary->logits};
}

LogitSummary Sampler::Merge(const Step& step, int index) {
  size_t offset = 0;
  for (int i = 0; i < index; ++i) {
    if (step.outputs[i].whole == 0) offset += BytesOf(step.outputs[i]);
  }
  std::vector<LogitSummary> summaries;
  std::vector<const Candidate*> lists;
  std::vector<int64_t> counts;
  const StepOutput& output = step.outputs[index];
  for (int rank = 0; rank < size_; ++rank) {
    const std::byte* from = received_.as<std::byte>() + rank * candidate_bytes_ + offset;
    Summary summary;
    std::memcpy(&summary, from, sizeof(summary));
    summaries.push_back(summary.logits);
    lists.push_back(reinterpret_cast<const Candidate*>(from + sizeof(Summary)));
    // What a peer wrote is never trusted as a length.
    counts.push_back(std::clamp<int64_t>(summary.candidates, 0, output.candidates));
  }
  merged_.resize(output.candidates);
  merged_count_ =
      MergeCandidates(lists.data(), counts.data(), size_, output.candidates, merged_.data());
  return MergeSummaries(summaries.data(), size_, output.inverse_temperature);
}

LogitSummary Sampler::RankWhole(const float* logits, int candidates) {
  LogitSummary summary{};
  merged_.resize(candidates);
  ShardTopKCpu({.logits = logits,
                .vocab_local = options_.vocabulary,
                .vocab_begin = 0,
                .k = candidates,
                .inverse_temperature = 1,
                .candidates = merged_.data(),
                .candidate_count = &merged_count_,
                .summary = &summary});
  return summary;
}

const float* Sampler::WholeLogits(const Step& step, int index) const {
  const auto before = std::count_if(step.outputs.begin(), step.outputs.begin() + index,
                                    [](const StepOutput& output) { return output.whole != 0; });
  return whole_.data() + before * options_.vocabulary;
}

absl::StatusOr<SampledToken> Sampler::Draw(const Step& step, int index, const SequenceSlice& slice,
                                           const LogitSummary& summary) {
  const StepOutput& output = step.outputs[index];
  const SamplingParams params = ParamsOf(slice, step.rows[output.row].position + 1);
  if (output.whole != 0) scratch_.resize(options_.vocabulary);
  const SampledToken sampled =
      output.whole != 0
          ? SampleFromLogits(params, WholeLogits(step, index), options_.vocabulary, scratch_.data())
          : SampleFromCandidates(params, merged_.data(), merged_count_, summary);
  switch (sampled.status) {
    case SamplingStatus::kOk:
      return sampled;
    case SamplingStatus::kNoCandidate:
      return CannotSample(slice, "every logit is minus infinity");
    case SamplingStatus::kMoreNeeded:
      return CannotSample(slice, "too few candidates were gathered");
    case SamplingStatus::kInvalidParams:
      return CannotSample(slice, "its sampling values are out of range");
    case SamplingStatus::kInvalidLogit:
      break;
  }
  return CannotSample(slice, "a logit is not a number");
}

float Sampler::LogitOf(const Step& step, int index, int32_t token) const {
  if (step.outputs[index].whole != 0) return WholeLogits(step, index)[token];
  return std::find_if(merged_.begin(), merged_.begin() + merged_count_,
                      [&](const Candidate& candidate) { return candidate.id == token; })
      ->logit;
}

absl::StatusOr<SliceOutput> Sampler::Answer(const Step& step, int index,
                                            const SequenceSlice& slice) {
  const LogitSummary summary =
      step.outputs[index].whole != 0
          ? RankWhole(WholeLogits(step, index), static_cast<int>(slice.top_n))
          : Merge(step, index);
  const bool chosen = slice.sample || slice.top_n > 0;
  if (chosen && summary.invalid_count > 0) return CannotSample(slice, "a logit is not a number");
  const auto logprob = [&](const Candidate& candidate) {
    float value = 0;
    LogProbabilities(&candidate, 1, summary, &value);
    return TokenLogprob{.token = candidate.id, .logprob = value};
  };
  SliceOutput answer;
  if (slice.return_logits) {
    const float* logits = WholeLogits(step, index);
    answer.logits.assign(logits, logits + options_.vocabulary);
  }
  for (int64_t i = 0; i < std::min<int64_t>(merged_count_, slice.top_n); ++i) {
    answer.top.push_back(logprob(merged_[i]));
  }
  if (slice.sample) {
    MUSTER_ASSIGN_OR_RETURN(const SampledToken sampled, Draw(step, index, slice, summary));
    answer.sampled = logprob({sampled.token, LogitOf(step, index, sampled.token)});
  }
  return answer;
}

}  // namespace muster
