#ifndef MUSTER_WORKER_MODEL_CUDA_CUDA_OPS_H_
#define MUSTER_WORKER_MODEL_CUDA_CUDA_OPS_H_

#include <map>
#include <memory>
#include <tuple>

#include "worker/device/cuda/cuda_device.h"
#include "worker/model/ops.h"

namespace muster {

class CublasLt;
class CudaLinear;

// Ops on a GPU: the kernels of Muster, and cuBLASLt for matrix products of many rows. Activations
// have the type of the weights. All work of one CudaOps follows on one stream, enqueued by a thread
// on which the GPU is current. `device` and `ledger` outlive it.
class CudaOps final : public Ops {
 public:
  CudaOps(CudaDevice& device, Ledger& ledger);
  ~CudaOps() override;

  DType Activation(DType weights) const override { return weights; }
  // Also UNAVAILABLE: cuBLASLt was not found, or is of another version.
  absl::Status Prepare(const Matrix& weights, int max_rows) override;
  absl::Status PrepareAttention(const PagedAttentionParams& params, int max_rows) override;
  absl::Status Linear(Stream& stream, const LinearParams& params, int rows) override;
  absl::Status Embed(Stream& stream, const EmbeddingParams& params, int rows) override;
  absl::Status RopeKv(Stream& stream, const RopeKvParams& params, int rows) override;
  absl::Status Attend(Stream& stream, const PagedAttentionParams& params, int rows) override;
  absl::Status SwiGlu(Stream& stream, const SwiGluParams& params, int rows) override;
  absl::Status GatherRows(Stream& stream, const GatherRowsParams& params, int outputs) override;
  absl::Status Convert(Stream& stream, const ConvertParams& params, int64_t count) override;
  // INVALID_ARGUMENT: a shard of more logits, or more candidates, than ShardTopKCuda takes.
  absl::Status ShardTopK(Stream& stream, absl::Span<const ShardTopKParams> shards) override;

 private:
  using ShapeKey = std::tuple<int64_t, int64_t, DType>;  // n, k
  struct Prepared {
    int max_rows = 0;
    std::map<DType, std::unique_ptr<CudaLinear>> products;  // by the type of y
  };

  absl::Status Grow(Buffer& buffer, size_t bytes);
  absl::Status PrepareProduct(const Matrix& weights, DType y_dtype, Prepared& prepared);
  absl::Status MultiplyFewRows(Stream& stream, const LinearParams& params, int rows);
  absl::Status MultiplyManyRows(Stream& stream, CudaLinear& product, const LinearParams& params,
                                int rows);

  CudaDevice& device_;
  Ledger& ledger_;
  const int multiprocessors_;  // that this rank may fill

  // Device thread only.
  std::unique_ptr<CublasLt> cublas_;  // once a step can have many rows; outlives the products
  std::map<ShapeKey, Prepared> prepared_;
  Buffer attention_scratch_;
  Buffer top_k_scratch_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CUDA_CUDA_OPS_H_
