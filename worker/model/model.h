// A model as the engine sees it: buffers at fixed addresses, and a forward over
// them.
#ifndef MUSTER_WORKER_MODEL_MODEL_H_
#define MUSTER_WORKER_MODEL_MODEL_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/kv_descriptor.h"
#include "worker/device/stream.h"

namespace muster {

// The limits that fixed buffers are made for.
struct StepLimits {
  int max_rows = 512;        // new tokens of all slices of a step
  int max_outputs = 32;      // rows whose logits are wanted
  int max_sequences = 256;   // sequence slots held at once
  int max_local_blocks = 0;  // KV blocks of one sequence on one rank
};

// What the engine writes before a step and reads after it. Addresses are fixed
// for the life of the model; contents change between steps only.
struct StepBuffers {
  int32_t* token_ids = nullptr;      // [max_rows]; -1 in padded rows
  int32_t* positions = nullptr;      // [max_rows]; 0 in padded rows
  int32_t* row_sequences = nullptr;  // [max_rows]: sequence slot, -1 in padded rows
  int32_t* output_rows = nullptr;    // [max_outputs]: row of the step, any valid row where unused
  int32_t* block_tables = nullptr;  // [max_sequences, max_local_blocks]: arena block, -1 where none
  KvDescriptor* kv = nullptr;       // base is null until the arena exists
  const float* logits = nullptr;    // [max_outputs, local vocabulary], written by Forward
};

// One rank's part of a model. Used by the device thread.
class Model {
 public:
  virtual ~Model() = default;

  virtual const StepBuffers& buffers() const = 0;

  // Enqueues the forward of `rows` rows and the logits of `outputs` rows,
  // collectives included: all ranks of the replica call it with the same
  // numbers. Nothing is allocated and no collective is created.
  virtual absl::Status Forward(Stream& stream, int rows, int outputs) = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_MODEL_H_
