#include "worker/engine/step_runner.h"

#include <algorithm>

#include "absl/time/clock.h"
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
    MUSTER_ASSIGN_OR_RETURN(graphs_[bucket], parts_.device.Capture(parts_.stream, [&] {
      return parts_.model.Forward(parts_.stream, parts_.model.Whole(bucket, bucket));
    }));
    graph_bytes_ += graphs_[bucket]->bytes();
    parts_.ledger.Charge("graphs", graphs_[bucket]->bytes());
    MUSTER_RETURN_IF_ERROR(options_.exclusively([&]() -> absl::Status {
      MUSTER_RETURN_IF_ERROR(graphs_[bucket]->Launch(parts_.stream));
      return parts_.stream.Synchronize();
    }));
  }
  on_graph(total, total);
  return absl::OkStatus();
}

absl::Status StepRunner::Run(const Step& step, HiddenStates hidden) {
  const absl::Time begun = absl::Now();
  MUSTER_RETURN_IF_ERROR(ApplyTables(step));
  rows_run_ = 0;
  if (!step.rows.empty()) MUSTER_RETURN_IF_ERROR(RunRows(step, hidden));
  device_time_ = absl::Now() - begun;
  return absl::OkStatus();
}

absl::Status StepRunner::RunRows(const Step& step, HiddenStates hidden) {
  Graph* const graph = GraphOf(step);
  const bool padded = graph != nullptr || step.bucket >= kPaddedRows;
  rows_run_ = padded ? step.bucket : static_cast<int>(step.rows.size());
  const int outputs = graph != nullptr ? step.output_bucket : static_cast<int>(step.outputs.size());
  FillBuffers(step, rows_run_, outputs);
  MUSTER_RETURN_IF_ERROR(parts_.kv.Flush(parts_.stream));
  if (graph != nullptr) {
    MUSTER_RETURN_IF_ERROR(graph->Launch(parts_.stream));
  } else {
    if (step.from_hidden != 0) FillHidden(rows_run_, hidden);
    MUSTER_RETURN_IF_ERROR(
        parts_.model.Forward(parts_.stream, {.rows = rows_run_,
                                             .outputs = outputs,
                                             .layers = step.layers,
                                             .from_hidden = step.from_hidden != 0,
                                             .hidden_of = step.hidden_of}));
  }
  // The sampler waits for what it gathers, and so for all.
  return step.outputs.empty()
             ? parts_.stream.Synchronize()
             : parts_.sampler.Gather(parts_.stream, step, parts_.model.buffers().logits);
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

Graph* StepRunner::GraphOf(const Step& step) const {
  const bool whole = step.layers == LayerRange{0, parts_.model.layers()};
  if (!whole || step.from_hidden != 0 || step.hidden_of >= 0) return nullptr;
  if (step.bucket != step.output_bucket) return nullptr;
  const auto found = graphs_.find(step.bucket);
  return found == graphs_.end() ? nullptr : found->second.get();
}

}  // namespace muster
