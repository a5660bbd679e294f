#include "worker/engine/step_runner.h"

#include <algorithm>
#include <utility>

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
  const int total = static_cast<int>(options_.buckets.size());
  for (const int bucket : options_.buckets) {
    on_graph(static_cast<int>(graphs_.size()), total);
    FillBuffers(padding, bucket, bucket);
    MUSTER_ASSIGN_OR_RETURN(graphs_[bucket], parts_.device.Capture(parts_.stream, [&] {
      return parts_.model.Forward(parts_.stream, parts_.model.Whole(bucket, bucket));
    }));
    graph_bytes_ += graphs_[bucket]->bytes();
    parts_.ledger.Charge("graphs", graphs_[bucket]->bytes());
    MUSTER_RETURN_IF_ERROR(graphs_[bucket]->Launch(parts_.stream));
    MUSTER_RETURN_IF_ERROR(parts_.stream.Synchronize());
  }
  on_graph(total, total);
  return absl::OkStatus();
}

absl::Status StepRunner::Run(const Step& step) {
  const absl::Time begun = absl::Now();
  MUSTER_RETURN_IF_ERROR(ApplyTables(step));
  Graph* const graph = GraphOf(step);
  const bool padded = graph != nullptr || step.bucket >= kPaddedRows;
  rows_run_ = padded ? step.bucket : static_cast<int>(step.rows.size());
  const int outputs = graph != nullptr ? step.output_bucket : static_cast<int>(step.outputs.size());
  FillBuffers(step, rows_run_, outputs);
  MUSTER_RETURN_IF_ERROR(
      graph != nullptr
          ? graph->Launch(parts_.stream)
          : parts_.model.Forward(parts_.stream, parts_.model.Whole(rows_run_, outputs)));
  MUSTER_RETURN_IF_ERROR(parts_.stream.Synchronize());
  MUSTER_RETURN_IF_ERROR(parts_.sampler.Gather(parts_.stream, step, parts_.model.buffers().logits));
  device_time_ = absl::Now() - begun;
  return absl::OkStatus();
}

absl::Status StepRunner::ApplyTables(const Step& step) {
  for (const std::vector<int32_t>* slots : {&step.freed_slots, &step.new_slots}) {
    for (const int32_t slot : *slots) MUSTER_RETURN_IF_ERROR(ClearSlot(slot));
  }
  for (const StepBlock& block : step.blocks) {
    if (block.block % options_.cp != options_.cp_rank) continue;
    MUSTER_RETURN_IF_ERROR(parts_.kv.SetBlock(block.slot, block.block / options_.cp, block.arena));
    ++blocks_of_slot_[block.slot];
    ++kv_blocks_used_;
  }
  return absl::OkStatus();
}

absl::Status StepRunner::ClearSlot(int32_t slot) {
  MUSTER_RETURN_IF_ERROR(parts_.kv.ClearSequence(slot));
  kv_blocks_used_ -= std::exchange(blocks_of_slot_[slot], 0);
  return absl::OkStatus();
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

Graph* StepRunner::GraphOf(const Step& step) const {
  if (step.bucket != step.output_bucket) return nullptr;
  const auto found = graphs_.find(step.bucket);
  return found == graphs_.end() ? nullptr : found->second.get();
}

}  // namespace muster
