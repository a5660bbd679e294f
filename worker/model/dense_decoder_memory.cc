#include "worker/model/dense_decoder_memory.h"

#include "base/status_macros.h"
#include "worker/model/arena.h"

namespace muster {
namespace {

constexpr char kTag[] = "activations";

void AddInputs(StepInputs& inputs, const StepLimits& limits, Arena& arena) {
  arena.Add(&inputs.token_ids, limits.max_rows);
  arena.Add(&inputs.positions, limits.max_rows);
  arena.Add(&inputs.row_sequences, limits.max_rows);
  arena.Add(&inputs.output_rows, limits.max_outputs);
}

}  // namespace

absl::StatusOr<DenseDecoderMemory> DenseDecoderMemory::Allocate(const DenseWidths& widths,
                                                                const StepLimits& limits,
                                                                DType dtype, Device& device,
                                                                Ledger& ledger) {
  DenseDecoderMemory memory;
  MUSTER_RETURN_IF_ERROR(memory.AllocateInputs(limits, device, ledger));
  MUSTER_RETURN_IF_ERROR(
      memory.AllocateHidden(int64_t{limits.max_rows} * widths.hidden, device, ledger));
  MUSTER_RETURN_IF_ERROR(memory.AllocateActivations(widths, limits, dtype, device, ledger));
  return memory;
}

absl::Status DenseDecoderMemory::AllocateInputs(const StepLimits& limits, Device& device,
                                                Ledger& ledger) {
  StepInputs host;
  Arena host_arena, device_arena;
  AddInputs(host, limits, host_arena);
  AddInputs(inputs_, limits, device_arena);
  MUSTER_ASSIGN_OR_RETURN(host_inputs_, host_arena.AllocateHost(device, kTag, ledger));
  MUSTER_ASSIGN_OR_RETURN(device_inputs_, device_arena.Allocate(device, kTag, ledger));
  step_.token_ids = host.token_ids;
  step_.positions = host.positions;
  step_.row_sequences = host.row_sequences;
  step_.output_rows = host.output_rows;
  return absl::OkStatus();
}

absl::Status DenseDecoderMemory::AllocateHidden(int64_t elements, Device& device, Ledger& ledger) {
  Arena arena;
  arena.Add(&step_.hidden_in, elements);
  arena.Add(&hidden_out_, elements);
  MUSTER_ASSIGN_OR_RETURN(host_hidden_, arena.AllocateHost(device, kTag, ledger));
  step_.hidden_out = hidden_out_;
  return absl::OkStatus();
}

absl::Status DenseDecoderMemory::AllocateActivations(const DenseWidths& widths,
                                                     const StepLimits& limits, DType dtype,
                                                     Device& device, Ledger& ledger) {
  const int64_t rows = limits.max_rows, outputs = limits.max_outputs;
  Activations& act = activations_;
  Arena arena;
  arena.Add(&act.residual, dtype, rows * widths.hidden);
  arena.Add(&act.normed, dtype, rows * widths.hidden);
  arena.Add(&act.partial, dtype, rows * widths.hidden);
  arena.Add(&act.qkv, dtype, rows * widths.qkv);
  arena.Add(&act.attention, dtype, rows * widths.attention);
  arena.Add(&act.lse, rows * widths.heads);
  if (widths.combined > 0) arena.Add(&act.combined, dtype, rows * widths.combined);
  arena.Add(&act.gate_up, dtype, rows * 2 * widths.ffn);
  arena.Add(&act.ffn, dtype, rows * widths.ffn);
  arena.Add(&act.hidden, rows * widths.hidden);
  arena.Add(&act.outputs, dtype, outputs * widths.hidden);
  arena.Add(&act.logits, outputs * widths.vocabulary);
  arena.Add(&act.cos, widths.positions * widths.rope);
  arena.Add(&act.sin, widths.positions * widths.rope);
  MUSTER_ASSIGN_OR_RETURN(device_activations_, arena.Allocate(device, kTag, ledger));
  if (widths.combined == 0) act.combined = act.attention;
  step_.logits = act.logits;
  return absl::OkStatus();
}

absl::Status DenseDecoderMemory::CopyInputs(Device& device, Stream& stream) const {
  return device.Copy(stream, device_inputs_.data(), host_inputs_.data(), device_inputs_.size());
}

}  // namespace muster
