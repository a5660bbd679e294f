#ifndef MUSTER_WORKER_MODEL_CPU_CPU_OPS_H_
#define MUSTER_WORKER_MODEL_CPU_CPU_OPS_H_

#include <map>
#include <memory>
#include <tuple>

#include "worker/device/cpu/cpu_device.h"
#include "worker/model/cpu/onednn_linear.h"
#include "worker/model/ops.h"

namespace muster {

// Ops on the threads of a CpuDevice: the kernels of Muster, and oneDNN for matrix products of many
// rows. `device` and `ledger` outlive it.
class CpuOps final : public Ops {
 public:
  // Row counts that oneDNN is prepared for, which it multiplies faster (linear_benchmark): larger
  // steps are padded to one of them. Others run as several products of few rows.
  static constexpr int kGemmRows[] = {32, 64, 128, 256, 512};

  CpuOps(CpuDevice& device, Ledger& ledger) : device_(device), ledger_(ledger) {}

  // Whatever the weights are: sums are float32 here.
  DType Activation(DType) const override { return DType::kFloat32; }

  absl::Status Prepare(const Matrix& weights, int max_rows) override;
  absl::Status PrepareAttention(const PagedAttentionParams&, int) override {
    return absl::OkStatus();
  }
  absl::Status Linear(Stream& stream, const LinearParams& params, int rows) override;
  absl::Status Embed(Stream& stream, const EmbeddingParams& params, int rows) override;
  absl::Status RopeKv(Stream& stream, const RopeKvParams& params, int rows) override;
  absl::Status Attend(Stream& stream, const PagedAttentionParams& params, int rows) override;
  absl::Status SwiGlu(Stream& stream, const SwiGluParams& params, int rows) override;
  absl::Status GatherRows(Stream& stream, const GatherRowsParams& params, int outputs) override;
  absl::Status Convert(Stream& stream, const ConvertParams& params, int64_t count) override;
  absl::Status ShardTopK(Stream& stream, absl::Span<const ShardTopKParams> shards) override;

 private:
  using ShapeKey = std::tuple<int64_t, int64_t, DType>;  // n, k
  struct Prepared {
    int max_rows = 0;
    std::unique_ptr<OneDnnLinear> gemm;  // null where no step has so many rows, or oneDNN cannot
  };

  absl::Status Grow(Buffer& buffer, size_t bytes);
  // x as the operand of `weights`: rounded into operand_ where they are bfloat16.
  const void* Operand(ThreadPool& pool, const LinearParams& params, int rows);
  void MultiplyFewRows(ThreadPool& pool, const LinearParams& params, const void* x, int rows);
  absl::Status MultiplyManyRows(ThreadPool& pool, OneDnnLinear& gemm, const LinearParams& params,
                                const void* x, int rows);

  CpuDevice& device_;
  Ledger& ledger_;

  // Device thread only.
  std::map<ShapeKey, Prepared> prepared_;
  Buffer operand_;                // bfloat16 [rows, k]
  Buffer scratchpad_;             // of oneDNN, one run of scratchpad_stride_ bytes per thread
  size_t scratchpad_stride_ = 0;  // bytes
};

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CPU_CPU_OPS_H_
