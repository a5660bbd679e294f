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

const char* ReasonOf(SamplingStatus status) {
  switch (status) {
    case SamplingStatus::kOk:
      return "it was";
    case SamplingStatus::kNoCandidate:
      return "every logit is minus infinity";
    case SamplingStatus::kMoreNeeded:
      return "too few candidates were gathered";
    case SamplingStatus::kInvalidParams:
      return "its sampling values are out of range";
    case SamplingStatus::kInvalidLogit:
      break;
  }
  return "a logit is not a number";
}

absl::Status CannotSample(const SequenceSlice& slice, SamplingStatus status) {
  return MakeError(absl::StatusCode::kInternal,
                   absl::StrCat("sequence ", Quoted(slice.sequence_id),
                                " cannot be sampled: ", ReasonOf(status)),
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
  const size_t ranks = static_cast<size_t>(sampler->size_);
  const size_t all = bytes * ranks;
  MUSTER_ASSIGN_OR_RETURN(sampler->send_, parts.device.Allocate(bytes, "sampling", parts.ledger));
  MUSTER_ASSIGN_OR_RETURN(sampler->gathered_, parts.device.Allocate(all, "sampling", parts.ledger));
  MUSTER_ASSIGN_OR_RETURN(sampler->received_,
                          parts.device.AllocateHost(all, "sampling", parts.ledger));
  const size_t whole = sampler->longest_shard_ * sizeof(float) * ranks;
  MUSTER_ASSIGN_OR_RETURN(sampler->landed_,
                          parts.device.AllocateHost(whole, "sampling", parts.ledger));
  sampler->shards_.reserve(options.max_outputs);
  return sampler;
}

absl::Status Sampler::Gather(Stream& stream, const Step& step, const float* logits) {
  MUSTER_RETURN_IF_ERROR(GatherCandidates(stream, step, logits));
  whole_outputs_.clear();
  for (int i = 0; i < static_cast<int>(step.outputs.size()); ++i) {
    if (NeedsWhole(step, i)) whole_outputs_.push_back(i);
  }
  return GatherWhole(stream, logits);
}

absl::Status Sampler::GatherCandidates(Stream& stream, const Step& step, const float* logits) {
  candidate_bytes_ = 0;
  shards_.clear();
  for (size_t i = 0; i < step.outputs.size(); ++i) {
    if (step.outputs[i].kind == OutputKind::kWhole) continue;
    shards_.push_back(TopKOf(step, i, logits, send_.as<std::byte>() + candidate_bytes_));
    candidate_bytes_ += BytesOf(step.outputs[i]);
  }
  if (candidate_bytes_ == 0) return absl::OkStatus();
  MUSTER_RETURN_IF_ERROR(ops_.ShardTopK(stream, shards_));
  MUSTER_RETURN_IF_ERROR(
      stage_.AllGather(stream, send_.data(), gathered_.data(), candidate_bytes_));
  MUSTER_RETURN_IF_ERROR(device_.Copy(stream, received_.data(), gathered_.data(),
                                      candidate_bytes_ * static_cast<size_t>(size_)));
  return stream.Synchronize();
}

bool Sampler::NeedsWhole(const Step& step, int index) const {
  const StepOutput& output = step.outputs[index];
  if (output.kind != OutputKind::kFiltered) return output.kind == OutputKind::kWhole;
  const Merged merged = Merge(step, index);
  if (merged.logits.invalid_count > 0) return false;  // nothing will be drawn
  return CountKept({output.top_k, output.top_p, output.inverse_temperature},
                   merged.candidates.data(), static_cast<int64_t>(merged.candidates.size()),
                   merged.logits) < 0;
}

absl::Status Sampler::GatherWhole(Stream& stream, const float* logits) {
  whole_.clear();
  const size_t bytes = longest_shard_ * sizeof(float);
  for (const int output : whole_outputs_) {
    MUSTER_RETURN_IF_ERROR(device_.Copy(
        stream, send_.data(), logits + int64_t{output} * shard_size_, shard_size_ * sizeof(float)));
    MUSTER_RETURN_IF_ERROR(stage_.AllGather(stream, send_.data(), gathered_.data(), bytes));
    if (stage_.group().rank() != GroupRank(0)) continue;
    MUSTER_RETURN_IF_ERROR(
        device_.Copy(stream, landed_.data(), gathered_.data(), bytes * static_cast<size_t>(size_)));
    MUSTER_RETURN_IF_ERROR(stream.Synchronize());
    for (int rank = 0; rank < size_; ++rank) {
      const float* shard = landed_.as<float>() + int64_t{rank} * longest_shard_;
      whole_.insert(whole_.end(), shard, shard + ShardOf(options_.vocabulary, size_, rank).size());
    }
  }
  return whole_outputs_.empty() ? absl::OkStatus() : stream.Synchronize();
}

ShardTopKParams Sampler::TopKOf(const Step& step, size_t index, const float* logits,
                                std::byte* to) const {
  const StepOutput& output = step.outputs[index];
  auto* const summary = reinterpret_cast<Summary*>(to);
  return {.logits = logits + index * shard_size_,
          .vocab_local = shard_size_,
          .vocab_begin = shard_begin_,
          .k = output.candidates,
          .inverse_temperature = output.inverse_temperature,
          .candidates = reinterpret_cast<Candidate*>(to + sizeof(Summary)),
          .candidate_count = &summary->candidates,
          .summary = &summary->logits,
          .draw = output.kind == OutputKind::kDraw ? &summary->draw : nullptr,
          .key = {output.seed, int64_t{step.rows[output.row].position} + 1}};
}

Sampler::Merged Sampler::Merge(const Step& step, int index) const {
  size_t offset = 0;
  for (int i = 0; i < index; ++i) offset += BytesOf(step.outputs[i]);
  std::vector<LogitSummary> summaries;
  std::vector<ShardDraw> draws;
  std::vector<const Candidate*> lists;
  std::vector<int64_t> counts;
  const StepOutput& output = step.outputs[index];
  for (int rank = 0; rank < size_; ++rank) {
    const std::byte* from = received_.as<std::byte>() + rank * candidate_bytes_ + offset;
    Summary summary;
    std::memcpy(&summary, from, sizeof(summary));
    summaries.push_back(summary.logits);
    if (output.kind == OutputKind::kDraw) draws.push_back(summary.draw);
    lists.push_back(reinterpret_cast<const Candidate*>(from + sizeof(Summary)));
    // What a peer wrote is never trusted as a length.
    counts.push_back(std::clamp<int64_t>(summary.candidates, 0, output.candidates));
  }
  Merged merged{.logits = MergeSummaries(summaries.data(), size_, output.inverse_temperature),
                .draw = MergeDraws(draws.data(), static_cast<int>(draws.size())),
                .candidates = std::vector<Candidate>(output.candidates)};
  merged.candidates.resize(MergeCandidates(lists.data(), counts.data(), size_, output.candidates,
                                           merged.candidates.data()));
  return merged;
}

Sampler::Merged Sampler::Rank(const float* logits, int64_t candidates) const {
  Merged ranked{.candidates = std::vector<Candidate>(candidates)};
  int64_t count = 0;
  ShardTopKCpu({.logits = logits,
                .vocab_local = options_.vocabulary,
                .vocab_begin = 0,
                .k = candidates,
                .inverse_temperature = 1,
                .candidates = ranked.candidates.data(),
                .candidate_count = &count,
                .summary = &ranked.logits});
  ranked.candidates.resize(count);
  return ranked;
}

const float* Sampler::WholeLogits(int index) const {
  const auto found = std::lower_bound(whole_outputs_.begin(), whole_outputs_.end(), index);
  if (found == whole_outputs_.end() || *found != index) return nullptr;
  return whole_.data() + (found - whole_outputs_.begin()) * int64_t{options_.vocabulary};
}

absl::StatusOr<Candidate> Sampler::Draw(const Step& step, int index, const SequenceSlice& slice,
                                        const Merged& merged) {
  const StepOutput& output = step.outputs[index];
  if (merged.logits.count == 0) return CannotSample(slice, SamplingStatus::kNoCandidate);
  if (output.kind == OutputKind::kDraw) return Candidate{merged.draw.id, merged.draw.logit};
  const SamplingParams params = ParamsOf(slice, int64_t{step.rows[output.row].position} + 1);
  const float* const whole = WholeLogits(index);
  if (whole != nullptr) {
    scratch_.resize(options_.vocabulary);
    const SampledToken sampled =
        SampleFromLogits(params, whole, options_.vocabulary, scratch_.data());
    if (sampled.status != SamplingStatus::kOk) return CannotSample(slice, sampled.status);
    return Candidate{sampled.token, whole[sampled.token]};
  }
  const std::vector<Candidate>& listed = merged.candidates;
  const SampledToken sampled = SampleFromCandidates(
      params, listed.data(), static_cast<int64_t>(listed.size()), merged.logits);
  if (sampled.status != SamplingStatus::kOk) return CannotSample(slice, sampled.status);
  return *std::find_if(listed.begin(), listed.end(),
                       [&](const Candidate& candidate) { return candidate.id == sampled.token; });
}

absl::StatusOr<SliceOutput> Sampler::Answer(const Step& step, int index,
                                            const SequenceSlice& slice) {
  const bool whole = step.outputs[index].kind == OutputKind::kWhole;
  const Merged merged = whole ? Rank(WholeLogits(index), slice.top_n) : Merge(step, index);
  const bool chosen = slice.sample || slice.top_n > 0;
  if (chosen && merged.logits.invalid_count > 0) {
    return CannotSample(slice, SamplingStatus::kInvalidLogit);
  }
  const auto logprob = [&](const Candidate& candidate) {
    float value = 0;
    LogProbabilities(&candidate, 1, merged.logits, &value);
    return TokenLogprob{.token = candidate.id, .logprob = value};
  };
  SliceOutput answer;
  if (slice.return_logits) {
    const float* logits = WholeLogits(index);
    answer.logits.assign(logits, logits + options_.vocabulary);
  }
  const size_t top = std::min<size_t>(merged.candidates.size(), slice.top_n);
  for (size_t i = 0; i < top; ++i) answer.top.push_back(logprob(merged.candidates[i]));
  if (slice.sample) {
    MUSTER_ASSIGN_OR_RETURN(const Candidate sampled, Draw(step, index, slice, merged));
    answer.sampled = logprob(sampled);
  }
  return answer;
}

}  // namespace muster
