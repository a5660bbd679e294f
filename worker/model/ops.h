// What a device computes for a model: one method per step of the paper. Collectives are elsewhere.
#ifndef MUSTER_WORKER_MODEL_OPS_H_
#define MUSTER_WORKER_MODEL_OPS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/dtype.h"
#include "kernels/embedding.h"
#include "kernels/paged_attention.h"
#include "kernels/rope_kv.h"
#include "kernels/shard_top_k.h"
#include "kernels/swiglu.h"
#include "worker/device/stream.h"
#include "worker/model/matrix.h"

namespace muster {

// y = x W^T + bias. Weights of bfloat16 meet x rounded to bfloat16; sums are float32.
struct LinearParams {
  const void* x = nullptr;  // [rows, weights.k] in Ops::Activation of the weights' type
  Matrix weights;
  const float* bias = nullptr;      // [weights.n], or null
  void* y = nullptr;                // [rows, weights.n] in y_dtype
  DType y_dtype = DType::kFloat32;  // that of x, or float32
};

// out[i] = x[index[i]].
struct GatherRowsParams {
  const void* x = nullptr;         // [rows, hidden] in dtype
  const int32_t* index = nullptr;  // [outputs], each a row of x; read at run time
  int64_t hidden = 0;
  void* out = nullptr;  // [outputs, hidden] in dtype; does not overlap x
  DType dtype = DType::kFloat32;
};

// to[i] = from[i], rounded to nearest, ties to even.
struct ConvertParams {
  const void* from = nullptr;
  DType from_dtype = DType::kFloat32;
  void* to = nullptr;  // does not overlap `from`
  DType to_dtype = DType::kFloat32;
};

// The operations of one rank of one epoch. All but the first three mean *enqueued*: they check
// nothing that only memory knows, and the pointers in their parameters stay valid until they have
// run. What they compute, the headers under kernels/ say. Used by the device thread.
class Ops {
 public:
  virtual ~Ops() = default;

  // The type of activations beside weights of type `weights`: of all of a model's.
  virtual DType Activation(DType weights) const = 0;

  // Makes ready, before any capture, all that Linear needs for weights of this shape and up to
  // `max_rows` rows; what it allocates is charged as "activations". RESOURCE_EXHAUSTED.
  virtual absl::Status Prepare(const Matrix& weights, int max_rows) = 0;
  // The same of Attend with parameters like these; their pointers are not looked at.
  virtual absl::Status PrepareAttention(const PagedAttentionParams& params, int max_rows) = 0;

  // FAILED_PRECONDITION: this shape or this many rows were not prepared.
  virtual absl::Status Linear(Stream& stream, const LinearParams& params, int rows) = 0;
  virtual absl::Status Embed(Stream& stream, const EmbeddingParams& params, int rows) = 0;
  virtual absl::Status RopeKv(Stream& stream, const RopeKvParams& params, int rows) = 0;
  virtual absl::Status Attend(Stream& stream, const PagedAttentionParams& params, int rows) = 0;
  virtual absl::Status SwiGlu(Stream& stream, const SwiGluParams& params, int rows) = 0;
  virtual absl::Status GatherRows(Stream& stream, const GatherRowsParams& params, int outputs) = 0;
  virtual absl::Status Convert(Stream& stream, const ConvertParams& params, int64_t count) = 0;
  // One list of candidates per element of `shards`, which need not outlive the call.
  virtual absl::Status ShardTopK(Stream& stream, absl::Span<const ShardTopKParams> shards) = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_OPS_H_
