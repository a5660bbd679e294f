#include "worker/engine/step_runner.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/status_macros.h"

namespace muster {
namespace {

// Eager steps of buckets from here on are padded as well: matrix products of many rows are made
// ready for whole buckets, and a smaller step costs less as it is.
constexpr int kPaddedRows = 64;

// Writes `count` padded entries behind the `used` ones.
void Pad(int32_t* entries, int used, int count, int32_t padding) {
  std::fill(entries + used, entries + count, padding);
}

}  // namespace

absl::Status StepRunner::Capture(const std::function<void(int done, int total)>& on_graph) {
  const Step padding;
  MUSTER_RETURN_IF_ERROR(parts_.kv.Flush(parts_.stream));
  const int total = static_cast<int>(options_.buckets.size());
  for (const int bucket : options_.buckets) {
    on_graph(static_cast<int>(graphs_.size()), total);
    FillBuffers(padding, bucket, bucket);
    const CollectiveTally before = parts_.tally;
    MUSTER_ASSIGN_OR_RETURN(std::unique_ptr<Graph> graph, parts_.device.Capture(parts_.stream, [&] {
      return parts_.model.Forward(parts_.stream, parts_.model.Whole(bucket, bucket));
    }));
    graph_bytes_ += graph->bytes();
    parts_.ledger.Charge("graphs", graph->bytes());
    Graph& captured = *graph;
    graphs_[bucket] = {std::move(graph), parts_.tally - before};
    MUSTER_RETURN_IF_ERROR(options_.exclusively([&]() -> absl::Status {
      MUSTER_RETURN_IF_ERROR(captured.Launch(parts_.stream));
      return parts_.stream.Synchronize();
    }));
  }
  on_graph(total, total);
  return absl::OkStatus();
}

absl::Status StepRunner::Run(const Step& step, HiddenStates hidden) {
  begun_ = Clock::Real().Now();
  trace_ = {.on = parts_.spans.on()};
  const auto waited = trace_.on ? parts_.collectives.waited() : std::nullopt;
  MUSTER_RETURN_IF_ERROR(ApplyTables(step));
  rows_run_ = 0;
  if (!step.rows.empty()) MUSTER_RETURN_IF_ERROR(RunRows(step, hidden));
  device_time_ = Clock::Real().Now() - begun_;
  if (waited.has_value()) trace_.wait = *parts_.collectives.waited() - *waited;
  if (!step.rows.empty()) NoteRows(step);
  return absl::OkStatus();
}

void StepRunner::NoteRows(const Step& step) {
  const size_t rows = step.rows.size();
  size_t alone = 0;
  // Rows of a sequence follow each other.
  for (size_t begin = 0; begin < rows;) {
    size_t end = begin + 1;
    while (end < rows && step.rows[end].slot == step.rows[begin].slot) ++end;
    if (end == begin + 1) ++alone;
    begin = end;
  }
  EngineCounters& counters = parts_.counters;
  counters.tokens_decode.Add(alone);
  counters.tokens_prefill.Add(rows - alone);
  counters.padding_rows.Add(static_cast<uint64_t>(rows_run_) - rows);
  counters.rows.Observe(static_cast<int64_t>(rows));
  counters.device_time.Observe(device_time_);
}

void StepRunner::NoteCollectives(const CollectiveTally& tally) {
  parts_.counters.NoteCollectives(tally);
  for (size_t op = 0; op < CollectiveTally::kOps; ++op) {
    trace_.collectives += static_cast<uint32_t>(tally.operations[op]);
    trace_.collective_bytes += tally.bytes[op];
  }
}

void StepRunner::WriteSpans(const Step& step, absl::Time stamped, absl::Duration relay_time) const {
  if (!trace_.on || step.rows.empty()) return;
  const absl::Time ended = begun_ + device_time_;
  const auto write = [&](SpanKind kind, absl::Time begin, absl::Duration duration) {
    parts_.spans.Write({.kind = kind, .step = step.number, .begin = begin, .duration = duration});
  };
  write(SpanKind::kStep, stamped, ended - stamped);
  if (relay_time > absl::ZeroDuration()) write(SpanKind::kRelay, stamped, relay_time);
  parts_.spans.Write({.kind = SpanKind::kDevice,
                      .step = step.number,
                      .begin = begun_,
                      .duration = device_time_,
                      .rows = static_cast<uint32_t>(step.rows.size()),
                      .rows_run = static_cast<uint32_t>(rows_run_),
                      .collectives = trace_.collectives,
                      .collective_bytes = trace_.collective_bytes,
                      .collective_wait = trace_.wait});
  const absl::Time sampling = trace_.sampling_begun;
  if (sampling < ended) write(SpanKind::kSampling, sampling, ended - sampling);
}

absl::Status StepRunner::RunRows(const Step& step, HiddenStates hidden) {
  const CollectiveTally before = parts_.tally;
  const Captured* const graph = GraphOf(step);
  const bool padded = graph != nullptr || step.bucket >= kPaddedRows;
  rows_run_ = padded ? step.bucket : static_cast<int>(step.rows.size());
  const int outputs = graph != nullptr ? step.output_bucket : static_cast<int>(step.outputs.size());
  FillBuffers(step, rows_run_, outputs);
  MUSTER_RETURN_IF_ERROR(parts_.kv.Flush(parts_.stream));
  if (graph != nullptr) {
    MUSTER_RETURN_IF_ERROR(graph->graph->Launch(parts_.stream));
  } else {
    if (step.from_hidden != 0) FillHidden(rows_run_, hidden);
    MUSTER_RETURN_IF_ERROR(
        parts_.model.Forward(parts_.stream, {.rows = rows_run_,
                                             .outputs = outputs,
                                             .layers = step.layers,
                                             .from_hidden = step.from_hidden != 0,
                                             .hidden_of = step.hidden_of}));
  }
  if (trace_.on && !step.outputs.empty()) trace_.sampling_begun = Clock::Real().Now();
  // The sampler waits for what it gathers, and so for all.
  MUSTER_RETURN_IF_ERROR(
      step.outputs.empty()
          ? parts_.stream.Synchronize()
          : parts_.sampler.Gather(parts_.stream, step, parts_.model.buffers().logits));
  NoteCollectives(parts_.tally - before);
  if (graph != nullptr) {
    parts_.counters.NoteGraph(rows_run_);
    NoteCollectives(graph->collectives);
  } else {
    parts_.counters.steps_eager.Add();
  }
  return absl::OkStatus();
}

absl::Status StepRunner::ApplyTables(const Step& step) {
  for (const std::vector<int32_t>* slots : {&step.freed_slots, &step.new_slots}) {
    for (const int32_t slot : *slots) MUSTER_RETURN_IF_ERROR(parts_.kv.ClearSequence(slot));
  }
  for (const StepFork& fork : step.forks) MUSTER_RETURN_IF_ERROR(ApplyFork(fork));
  for (const StepBlock& block : step.blocks) {
    if (block.block % options_.cp == options_.cp_rank) MUSTER_RETURN_IF_ERROR(ApplyBlock(block));
  }
  return absl::OkStatus();
}

absl::Status StepRunner::ApplyFork(const StepFork& fork) {
  // Blocks cp_rank, cp_rank + cp, ... below fork.blocks.
  const int local = (fork.blocks - options_.cp_rank + options_.cp - 1) / options_.cp;
  return parts_.kv.ShareBlocks(fork.slot, fork.parent, local);
}

absl::Status StepRunner::ApplyBlock(const StepBlock& block) {
  const int index = block.block / options_.cp;
  return block.replaces != 0 ? parts_.kv.ReplaceBlock(parts_.stream, block.slot, index, block.arena)
                             : parts_.kv.SetBlock(block.slot, index, block.arena);
}

void StepRunner::FillBuffers(const Step& step, int rows, int outputs) {
  const StepBuffers& buffers = parts_.model.buffers();
  for (size_t i = 0; i < step.rows.size(); ++i) {
    buffers.token_ids[i] = step.rows[i].token;
    buffers.positions[i] = step.rows[i].position;
    buffers.row_sequences[i] = step.rows[i].slot;
  }
  const int used = static_cast<int>(step.rows.size());
  Pad(buffers.token_ids, used, rows, -1);
  Pad(buffers.positions, used, rows, 0);
  Pad(buffers.row_sequences, used, rows, -1);
  for (size_t i = 0; i < step.outputs.size(); ++i) buffers.output_rows[i] = step.outputs[i].row;
  Pad(buffers.output_rows, static_cast<int>(step.outputs.size()), outputs, 0);
}

void StepRunner::FillHidden(int rows, HiddenStates hidden) {
  float* to = parts_.model.buffers().hidden_in;
  float* const end = to + int64_t{rows} * parts_.model.hidden();
  for (const absl::Span<const float> slice : hidden) {
    to = std::copy(slice.begin(), slice.end(), to);
  }
  std::fill(to, end, 0.0f);
}

const StepRunner::Captured* StepRunner::GraphOf(const Step& step) const {
  const bool whole = step.layers == LayerRange{0, parts_.model.layers()};
  if (!whole || step.from_hidden != 0 || step.hidden_of >= 0) return nullptr;
  if (step.bucket != step.output_bucket) return nullptr;
  const auto found = graphs_.find(step.bucket);
  return found == graphs_.end() ? nullptr : &found->second;
}

}  // namespace muster
