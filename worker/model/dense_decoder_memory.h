// The fixed addresses of a dense decoder's step.
#ifndef MUSTER_WORKER_MODEL_DENSE_DECODER_MEMORY_H_
#define MUSTER_WORKER_MODEL_DENSE_DECODER_MEMORY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "worker/device/device.h"
#include "worker/model/model.h"

namespace muster {

// Elements of a row, on one rank.
struct DenseWidths {
  int64_t hidden = 0;
  int64_t qkv = 0;
  int64_t heads = 0;
  int64_t attention = 0;
  int64_t combined = 0;  // 0 where nothing is to be combined
  int64_t ffn = 0;
  int64_t vocabulary = 0;
  int64_t rope = 0;       // half a head
  int64_t positions = 0;  // rows of the rotary tables
};

// What a step is, as the device reads it.
struct StepInputs {
  int32_t* token_ids = nullptr;      // [rows]
  int32_t* positions = nullptr;      // [rows]
  int32_t* row_sequences = nullptr;  // [rows]
  int32_t* output_rows = nullptr;    // [max_outputs]
};

// Arrays of the device in the type of activations; rows are tokens of a step.
struct Activations {
  void* residual = nullptr;   // [rows, hidden]
  void* normed = nullptr;     // [rows, hidden]
  void* partial = nullptr;    // [rows, hidden], this rank's summand
  void* qkv = nullptr;        // [rows, (heads + 2 kv_heads) head_dim]
  void* attention = nullptr;  // [rows, heads * head_dim], over the blocks that this rank holds
  float* lse = nullptr;       // [rows, heads]
  void* combined = nullptr;   // [rows, o_columns]; is `attention` where cp is 1
  void* gate_up = nullptr;    // [rows, 2 ffn]
  void* ffn = nullptr;        // [rows, ffn]
  float* hidden = nullptr;    // [rows, hidden], on its way from or to the host
  void* outputs = nullptr;    // [max_outputs, hidden]
  float* logits = nullptr;    // [max_outputs, vocabulary]
  float* cos = nullptr;       // [positions, head_dim / 2]
  float* sin = nullptr;       // [positions, head_dim / 2]
};

// Owns all of them, and the host's side of what is copied. Ledger tag "activations".
class DenseDecoderMemory {
 public:
  // RESOURCE_EXHAUSTED.
  static absl::StatusOr<DenseDecoderMemory> Allocate(const DenseWidths& widths,
                                                     const StepLimits& limits, DType dtype,
                                                     Device& device, Ledger& ledger);

  const StepBuffers& step() const { return step_; }
  const StepInputs& inputs() const { return inputs_; }
  const Activations& activations() const { return activations_; }
  // Where hidden states that are asked for arrive: StepBuffers::hidden_out.
  float* hidden_out() const { return hidden_out_; }

  // Enqueues the copy of the step's rows and outputs to the device.
  absl::Status CopyInputs(Device& device, Stream& stream) const;

 private:
  DenseDecoderMemory() = default;

  absl::Status AllocateInputs(const StepLimits& limits, Device& device, Ledger& ledger);
  absl::Status AllocateHidden(int64_t elements, Device& device, Ledger& ledger);
  absl::Status AllocateActivations(const DenseWidths& widths, const StepLimits& limits, DType dtype,
                                   Device& device, Ledger& ledger);

  Buffer host_inputs_;
  Buffer device_inputs_;  // at the same offsets
  Buffer host_hidden_;
  Buffer device_activations_;
  StepBuffers step_;
  StepInputs inputs_;
  Activations activations_;
  float* hidden_out_ = nullptr;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_DENSE_DECODER_MEMORY_H_
