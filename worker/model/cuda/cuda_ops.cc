#include "worker/model/cuda/cuda_ops.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/add_bias.h"
#include "kernels/convert.h"
#include "kernels/cuda_status.h"
#include "kernels/gather_rows.h"
#include "kernels/skinny_matmul.h"
#include "worker/device/cuda/cuda_stream.h"
#include "worker/model/cuda/cuda_linear.h"

namespace muster {
namespace {

// Up to which the kernel of few rows is the faster one (linear_cuda_benchmark).
constexpr int kFewRows = 8;

CudaStream CudaOf(Stream& stream) { return CudaDeviceStream::From(stream).get(); }

bool IsAligned(const LinearParams& params) {
  for (const void* operand : {params.x, params.weights.data, static_cast<const void*>(params.y)}) {
    if (reinterpret_cast<uintptr_t>(operand) % CudaLinear::kAlignment != 0) return false;
  }
  return true;
}

absl::Status NotPrepared(const Matrix& weights, int rows) {
  return absl::FailedPreconditionError(absl::StrCat("linear [", rows, ", ", weights.k, "] x [",
                                                    weights.k, ", ", weights.n,
                                                    "] was not prepared"));
}

absl::Status CheckLimits(const ShardTopKParams& shard) {
  if (shard.vocab_local <= kMaxCudaShardVocab && shard.k <= kMaxCudaCandidates) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("the ", shard.k, " best of ", shard.vocab_local,
                                                 " logits: at most ", kMaxCudaCandidates, " of ",
                                                 kMaxCudaShardVocab, " on CUDA"));
}

}  // namespace

CudaOps::CudaOps(CudaDevice& device, Ledger& ledger)
    : device_(device), ledger_(ledger), multiprocessors_(device.multiprocessor_budget()) {}

CudaOps::~CudaOps() = default;

absl::Status CudaOps::Grow(Buffer& buffer, size_t bytes) {
  if (bytes <= buffer.size()) return absl::OkStatus();
  buffer = Buffer();
  MUSTER_ASSIGN_OR_RETURN(buffer, device_.Allocate(bytes, "activations", ledger_));
  return absl::OkStatus();
}

absl::Status CudaOps::Prepare(const Matrix& weights, int max_rows) {
  MUSTER_RETURN_IF_ERROR(device_.MakeCurrent());
  MUSTER_RETURN_IF_ERROR(
      Grow(top_k_scratch_,
           ShardTopKScratchBytes(kMaxCudaShards, kMaxCudaShardVocab, kMaxCudaCandidates)));
  Prepared& prepared = prepared_[{weights.n, weights.k, weights.dtype}];
  if (max_rows <= prepared.max_rows) return absl::OkStatus();
  prepared.max_rows = max_rows;
  if (max_rows <= kFewRows) return absl::OkStatus();
  if (cublas_ == nullptr) {
    MUSTER_ASSIGN_OR_RETURN(cublas_, CublasLt::Create(device_, ledger_));
  }
  MUSTER_RETURN_IF_ERROR(PrepareProduct(weights, DType::kFloat32, prepared));
  return PrepareProduct(weights, weights.dtype, prepared);
}

absl::Status CudaOps::PrepareProduct(const Matrix& weights, DType y_dtype, Prepared& prepared) {
  auto product = CudaLinear::Create(
      *cublas_, {.n = weights.n, .k = weights.k, .dtype = weights.dtype, .y_dtype = y_dtype});
  MUSTER_RETURN_IF_ERROR(product.status());
  const absl::Status chosen = (*product)->Prepare(prepared.max_rows);
  // Where cuBLASLt has no such product the kernel of few rows does it all.
  if (absl::IsUnimplemented(chosen)) return absl::OkStatus();
  prepared.products[y_dtype] = std::move(*product);
  return chosen;
}

absl::Status CudaOps::PrepareAttention(const PagedAttentionParams& params, int max_rows) {
  return Grow(attention_scratch_, PagedAttentionScratchBytes(params, max_rows, multiprocessors_));
}

absl::Status CudaOps::Linear(Stream& stream, const LinearParams& params, int rows) {
  const Matrix& weights = params.weights;
  const auto it = prepared_.find({weights.n, weights.k, weights.dtype});
  if (it == prepared_.end() || rows > it->second.max_rows) return NotPrepared(weights, rows);
  const auto product = it->second.products.find(params.y_dtype);
  const bool has_product = product != it->second.products.end();
  if (rows <= kFewRows || !has_product || !IsAligned(params)) {
    return MultiplyFewRows(stream, params, rows);
  }
  const absl::Status multiplied = MultiplyManyRows(stream, *product->second, params, rows);
  return absl::IsUnimplemented(multiplied) ? MultiplyFewRows(stream, params, rows) : multiplied;
}

absl::Status CudaOps::MultiplyFewRows(Stream& stream, const LinearParams& params, int rows) {
  const Matrix& weights = params.weights;
  return CudaStatus(SkinnyMatmulCuda({.x = params.x,
                                      .x_row_stride = weights.k,
                                      .weights = weights.data,
                                      .weights_row_stride = weights.k,
                                      .dtype = weights.dtype,
                                      .rows = rows,
                                      .k = weights.k,
                                      .y = params.y,
                                      .y_row_stride = weights.n,
                                      .x_dtype = weights.dtype,
                                      .y_dtype = params.y_dtype,
                                      .bias = params.bias},
                                     weights.n, multiprocessors_, CudaOf(stream)),
                    "linear");
}

absl::Status CudaOps::MultiplyManyRows(Stream& stream, CudaLinear& product,
                                       const LinearParams& params, int rows) {
  const CudaStream cuda = CudaOf(stream);
  MUSTER_RETURN_IF_ERROR(
      product.Run(cuda, rows, {.x = params.x, .weights = params.weights.data, .y = params.y}));
  if (params.bias == nullptr) return absl::OkStatus();
  return CudaStatus(AddBiasCuda({.y = params.y,
                                 .row_stride = params.weights.n,
                                 .width = params.weights.n,
                                 .bias = params.bias,
                                 .dtype = params.y_dtype},
                                rows, cuda),
                    "bias");
}

absl::Status CudaOps::Embed(Stream& stream, const EmbeddingParams& params, int rows) {
  return CudaStatus(EmbeddingCuda(params, rows, CudaOf(stream)), "embedding");
}

absl::Status CudaOps::RopeKv(Stream& stream, const RopeKvParams& params, int rows) {
  return CudaStatus(RopeKvCuda(params, rows, CudaOf(stream)), "rope and KV");
}

absl::Status CudaOps::Attend(Stream& stream, const PagedAttentionParams& params, int rows) {
  const PagedAttentionScratch scratch{attention_scratch_.data(), attention_scratch_.size()};
  return CudaStatus(PagedAttentionCuda(params, rows, scratch, multiprocessors_, CudaOf(stream)),
                    "attention");
}

absl::Status CudaOps::SwiGlu(Stream& stream, const SwiGluParams& params, int rows) {
  return CudaStatus(SwiGluCuda(params, rows, CudaOf(stream)), "SwiGLU");
}

absl::Status CudaOps::GatherRows(Stream& stream, const GatherRowsParams& params, int outputs) {
  return CudaStatus(GatherRowsCuda({.x = params.x,
                                    .index = params.index,
                                    .hidden = params.hidden,
                                    .out = params.out,
                                    .dtype = params.dtype},
                                   outputs, CudaOf(stream)),
                    "gathering rows");
}

absl::Status CudaOps::Convert(Stream& stream, const ConvertParams& params, int64_t count) {
  return CudaStatus(ConvertCuda({.from = params.from,
                                 .from_dtype = params.from_dtype,
                                 .to = params.to,
                                 .to_dtype = params.to_dtype},
                                count, CudaOf(stream)),
                    "conversion");
}

absl::Status CudaOps::ShardTopK(Stream& stream, absl::Span<const ShardTopKParams> shards) {
  for (const ShardTopKParams& shard : shards) MUSTER_RETURN_IF_ERROR(CheckLimits(shard));
  while (!shards.empty()) {
    const auto some = shards.subspan(0, kMaxCudaShards);
    MUSTER_RETURN_IF_ERROR(CudaStatus(ShardTopKCuda(some.data(), static_cast<int>(some.size()),
                                                    top_k_scratch_.data(), CudaOf(stream)),
                                      "candidates"));
    shards.remove_prefix(some.size());
  }
  return absl::OkStatus();
}

}  // namespace muster
