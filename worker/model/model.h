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

// Layers [begin, end).
struct LayerRange {
  int begin = 0;
  int end = 0;
  friend bool operator==(const LayerRange&, const LayerRange&) = default;
};

// What one Forward computes.
struct ForwardPass {
  int rows = 0;
  int outputs = 0;  // rows whose logits are wanted; 0 unless `layers` has the last one
  LayerRange layers;
  bool from_hidden = false;  // StepBuffers::hidden_in enters the first layer, not the embedding
  int hidden_of = -1;        // what enters this layer goes to StepBuffers::hidden_out; -1: nothing
};

// What the engine writes before a step and reads after it. Addresses are fixed for the life of the
// model; contents change between steps only. All but the logits is memory of the host: Forward
// begins and ends with its copies.
struct StepBuffers {
  int32_t* token_ids = nullptr;       // [max_rows]; -1 in padded rows
  float* hidden_in = nullptr;         // [max_rows, hidden]; 0 but on group rank 0 of the stage
  int32_t* positions = nullptr;       // [max_rows]; 0 in padded rows
  int32_t* row_sequences = nullptr;   // [max_rows]: sequence slot, -1 in padded rows
  int32_t* output_rows = nullptr;     // [max_outputs]: row of the step, any valid row where unused
  const float* hidden_out = nullptr;  // [max_rows, hidden], equal on all ranks, written by Forward
  const float* logits = nullptr;      // [max_outputs, local vocabulary], on the device
};

// One rank's part of a model. Used by the device thread.
class Model {
 public:
  virtual ~Model() = default;

  virtual const StepBuffers& buffers() const = 0;
  virtual int layers() const = 0;
  virtual int hidden() const = 0;

  // Enqueues a pass, collectives included: all ranks of the replica call it
  // with the same numbers. Nothing is allocated and no collective is created.
  // INVALID_ARGUMENT: a pass beyond the model or its limits.
  virtual absl::Status Forward(Stream& stream, const ForwardPass& pass) = 0;

  // Of all layers, from token ids.
  ForwardPass Whole(int rows, int outputs) const {
    return {.rows = rows, .outputs = outputs, .layers = {0, layers()}};
  }
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_MODEL_H_
