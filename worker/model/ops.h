// What a device computes for a model: one method per step of the paper. Collectives are elsewhere.
#ifndef MUSTER_WORKER_MODEL_OPS_H_
#define MUSTER_WORKER_MODEL_OPS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/embedding.h"
#include "kernels/paged_attention.h"
#include "kernels/rope_kv.h"
#include "kernels/swiglu.h"
#include "worker/device/stream.h"
#include "worker/model/matrix.h"

namespace muster {

// y = x W^T + bias. Weights of bfloat16 meet x rounded to bfloat16; sums are float32.
struct LinearParams {
  const float* x = nullptr;  // [rows, weights.k]
  Matrix weights;
  const float* bias = nullptr;  // [weights.n], or null
  float* y = nullptr;           // [rows, weights.n]
};

// out[i] = x[index[i]].
struct GatherRowsParams {
  const float* x = nullptr;        // [rows, hidden]
  const int32_t* index = nullptr;  // [outputs], each a row of x; read at run time
  int64_t hidden = 0;
  float* out = nullptr;  // [outputs, hidden]; does not overlap x
};

// The operations of one rank of one epoch. All but Prepare mean *enqueued*: they check nothing that
// only memory knows, and the pointers in their parameters stay valid until they have run. What they
// compute, the headers under kernels/ say. Used by the device thread.
class Ops {
 public:
  virtual ~Ops() = default;

  // Makes ready, before any capture, all that Linear needs for weights of this shape and up to
  // `max_rows` rows; what it allocates is charged as "activations". RESOURCE_EXHAUSTED.
  virtual absl::Status Prepare(const Matrix& weights, int max_rows) = 0;

  // FAILED_PRECONDITION: this shape or this many rows were not prepared.
  virtual absl::Status Linear(Stream& stream, const LinearParams& params, int rows) = 0;
  virtual absl::Status Embed(Stream& stream, const EmbeddingParams& params, int rows) = 0;
  virtual absl::Status RopeKv(Stream& stream, const RopeKvParams& params, int rows) = 0;
  virtual absl::Status Attend(Stream& stream, const PagedAttentionParams& params, int rows) = 0;
  virtual absl::Status SwiGlu(Stream& stream, const SwiGluParams& params, int rows) = 0;
  virtual absl::Status GatherRows(Stream& stream, const GatherRowsParams& params, int outputs) = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_OPS_H_
