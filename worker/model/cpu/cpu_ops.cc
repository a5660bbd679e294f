#include "worker/model/cpu/cpu_ops.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/add_bias.h"
#include "kernels/skinny_matmul.h"
#include "worker/device/cpu/cpu_stream.h"
#include "worker/model/convert.h"

namespace muster {
namespace {

// Of weights, that a thread takes at a time: small enough that threads end together though one was
// late or interrupted, large enough to stream.
constexpr int64_t kPieceBytes = 128 << 10;
// Below this many bytes touched, a second thread costs more than it saves.
constexpr int64_t kParallelBytes = 32 << 10;
constexpr int64_t kSkinnyRows = 32;     // in one pass over the weights
constexpr int64_t kSkinnyColumns = 8;   // of which a thread takes a multiple
constexpr int64_t kAttentionRows = 32;  // that share the reading of their keys

int64_t GrainOf(int64_t row_bytes) { return std::max<int64_t>(1, kParallelBytes / row_bytes); }

template <typename Params>
absl::Status RunRows(Stream& stream, void (*kernel)(const Params&, IndexRange),
                     const Params& params, int rows, int64_t row_bytes) {
  CpuStream& cpu = CpuStream::From(stream);
  return cpu.Run([&pool = cpu.pool(), kernel, params, rows, grain = GrainOf(row_bytes)] {
    pool.ForRanges(rows, grain, [&](int64_t begin, int64_t end) { kernel(params, {begin, end}); });
    return absl::OkStatus();
  });
}

void AddBias(ThreadPool& pool, const LinearParams& params, int rows) {
  const int64_t width = params.weights.n;
  const AddBiasParams add = {
      .y = params.y, .row_stride = width, .width = width, .bias = params.bias};
  pool.ForRanges(rows, GrainOf(width * int64_t{sizeof(float)}), [&](int64_t begin, int64_t end) {
    AddBiasCpu(add, {begin, end});
  });
}

void AttendInParts(ThreadPool& pool, const PagedAttentionParams& params, int64_t rows) {
  const int64_t threads = pool.threads();
  const int64_t chunk = std::clamp(rows / threads, int64_t{1}, kAttentionRows);
  const int64_t row_parts = (rows + chunk - 1) / chunk;
  // Whole KV heads where there are enough of them to share out, else what fills the threads.
  const int64_t head_parts = row_parts * params.layout.kv_heads >= 2 * threads
                                 ? params.layout.kv_heads
                                 : std::min<int64_t>(params.heads, threads);
  pool.Run(static_cast<int>(row_parts * head_parts), [&](int part) {
    // The last rows first: they have the most keys.
    const int64_t row = row_parts - 1 - part / head_parts;
    const int64_t head = part % head_parts;
    PagedAttentionCpu(params, {row * chunk, std::min((row + 1) * chunk, rows)},
                      {params.heads * head / head_parts, params.heads * (head + 1) / head_parts});
  });
}

}  // namespace

absl::Status CpuOps::Grow(Buffer& buffer, size_t bytes) {
  if (bytes <= buffer.size()) return absl::OkStatus();
  buffer = Buffer();
  MUSTER_ASSIGN_OR_RETURN(buffer, device_.Allocate(bytes, "activations", ledger_));
  return absl::OkStatus();
}

absl::Status CpuOps::Prepare(const Matrix& weights, int max_rows) {
  Prepared& prepared = prepared_[{weights.n, weights.k, weights.dtype}];
  if (max_rows <= prepared.max_rows) return absl::OkStatus();
  prepared.max_rows = max_rows;
  if (weights.dtype == DType::kBFloat16) {
    MUSTER_RETURN_IF_ERROR(Grow(operand_, max_rows * weights.k * sizeof(BFloat16)));
  }
  std::vector<int> row_counts;
  for (int rows : kGemmRows) {
    if (rows <= max_rows) row_counts.push_back(rows);
  }
  if (row_counts.empty()) return absl::OkStatus();
  const int threads = device_.pool().threads();
  auto gemm = OneDnnLinear::Create({weights.n, weights.k, weights.dtype}, row_counts, threads);
  // A processor without bfloat16 arithmetic: the kernel of few rows does it all.
  if (absl::IsUnimplemented(gemm.status())) return absl::OkStatus();
  MUSTER_ASSIGN_OR_RETURN(prepared.gemm, std::move(gemm));
  scratchpad_stride_ =
      std::max(scratchpad_stride_, (prepared.gemm->scratchpad_bytes() + 4095) / 4096 * 4096);
  return Grow(scratchpad_, scratchpad_stride_ * threads);
}

absl::Status CpuOps::Linear(Stream& stream, const LinearParams& params, int rows) {
  const Matrix& weights = params.weights;
  const auto it = prepared_.find({weights.n, weights.k, weights.dtype});
  if (it == prepared_.end() || rows > it->second.max_rows) {
    return absl::FailedPreconditionError(absl::StrCat("linear [", rows, ", ", weights.k, "] x [",
                                                      weights.k, ", ", weights.n,
                                                      "] was not prepared"));
  }
  OneDnnLinear* gemm = it->second.gemm.get();
  if (gemm != nullptr && !gemm->Has(rows)) gemm = nullptr;
  CpuStream& cpu = CpuStream::From(stream);
  return cpu.Run([this, &pool = cpu.pool(), gemm, params, rows] {
    const void* x = Operand(pool, params, rows);
    if (gemm != nullptr) {
      MUSTER_RETURN_IF_ERROR(MultiplyManyRows(pool, *gemm, params, x, rows));
    } else {
      MultiplyFewRows(pool, params, x, rows);
    }
    if (params.bias != nullptr) AddBias(pool, params, rows);
    return absl::OkStatus();
  });
}

const void* CpuOps::Operand(ThreadPool& pool, const LinearParams& params, int rows) {
  if (ActivationDType(params.weights.dtype) == DType::kFloat32) return params.x;
  const int64_t k = params.weights.k;
  const RoundActivationsParams round = {.x = static_cast<const float*>(params.x),
                                        .x_row_stride = k,
                                        .k = k,
                                        .out = operand_.as<BFloat16>(),
                                        .out_row_stride = k};
  pool.ForRanges(rows, GrainOf(k * int64_t{sizeof(float)}), [&](int64_t begin, int64_t end) {
    RoundActivationsCpu(round, {begin, end});
  });
  return operand_.data();
}

void CpuOps::MultiplyFewRows(ThreadPool& pool, const LinearParams& params, const void* x,
                             int rows) {
  const Matrix& weights = params.weights;
  SkinnyMatmulParams matmul = {.x = x,
                               .x_row_stride = weights.k,
                               .weights = weights.data,
                               .weights_row_stride = weights.k,
                               .dtype = weights.dtype,
                               .rows = 0,
                               .k = weights.k,
                               .y = static_cast<float*>(params.y),
                               .y_row_stride = weights.n};
  const int64_t units = (weights.n + kSkinnyColumns - 1) / kSkinnyColumns;
  const int64_t bytes = weights.n * weights.k * static_cast<int64_t>(SizeOf(weights.dtype));
  const int64_t pieces =
      std::clamp<int64_t>(bytes / kPieceBytes, 1, std::min<int64_t>(units, ThreadPool::kMaxParts));
  const size_t x_row_bytes = weights.k * SizeOf(ActivationDType(weights.dtype));
  for (int64_t row = 0; row < rows; row += kSkinnyRows) {
    matmul.rows = std::min<int64_t>(kSkinnyRows, rows - row);
    matmul.x = static_cast<const std::byte*>(x) + row * x_row_bytes;
    matmul.y = static_cast<float*>(params.y) + row * weights.n;
    pool.Run(static_cast<int>(pieces), [&](int piece) {
      const int64_t begin = units * piece / pieces * kSkinnyColumns;
      const int64_t end = units * (piece + 1) / pieces * kSkinnyColumns;
      SkinnyMatmulCpu(matmul, {begin, std::min(end, weights.n)});
    });
  }
}

absl::Status CpuOps::MultiplyManyRows(ThreadPool& pool, OneDnnLinear& gemm,
                                      const LinearParams& params, const void* x, int rows) {
  std::atomic<int> failed_part{-1};
  pool.Run(gemm.parts(), [&](int part) {
    const OneDnnLinear::Arguments arguments = {
        .x = x,
        .weights = params.weights.data,
        .y = static_cast<float*>(params.y),
        .scratchpad = scratchpad_.as<std::byte>() + part * scratchpad_stride_};
    if (!gemm.Run(rows, part, arguments).ok()) failed_part = part;
  });
  if (failed_part < 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("oneDNN failed on part ", failed_part.load(),
                                          " of a product of ", rows, " rows"));
}

absl::Status CpuOps::Embed(Stream& stream, const EmbeddingParams& params, int rows) {
  return RunRows(stream, EmbeddingCpu, params, rows, params.hidden * sizeof(float));
}

absl::Status CpuOps::RopeKv(Stream& stream, const RopeKvParams& params, int rows) {
  return RunRows(stream, RopeKvCpu, params, rows, params.row_stride * sizeof(float));
}

absl::Status CpuOps::Attend(Stream& stream, const PagedAttentionParams& params, int rows) {
  CpuStream& cpu = CpuStream::From(stream);
  return cpu.Run([&pool = cpu.pool(), params, rows] {
    AttendInParts(pool, params, rows);
    return absl::OkStatus();
  });
}

absl::Status CpuOps::SwiGlu(Stream& stream, const SwiGluParams& params, int rows) {
  return RunRows(stream, SwiGluCpu, params, rows, params.row_stride * sizeof(float));
}

absl::Status CpuOps::GatherRows(Stream& stream, const GatherRowsParams& params, int outputs) {
  return CpuStream::From(stream).Run([params, outputs] {
    for (int i = 0; i < outputs; ++i) {
      const size_t bytes = static_cast<size_t>(params.hidden) * SizeOf(params.dtype);
      std::memcpy(static_cast<std::byte*>(params.out) + i * bytes,
                  static_cast<const std::byte*>(params.x) + params.index[i] * bytes, bytes);
    }
    return absl::OkStatus();
  });
}

absl::Status CpuOps::Convert(Stream& stream, const ConvertParams& params, int64_t count) {
  return CpuStream::From(stream).Run([params, count] {
    ConvertElements(static_cast<const std::byte*>(params.from), params.from_dtype, params.to,
                    params.to_dtype, count);
    return absl::OkStatus();
  });
}

absl::Status CpuOps::ShardTopK(Stream& stream, absl::Span<const ShardTopKParams> shards) {
  for (const ShardTopKParams& shard : shards) {
    MUSTER_RETURN_IF_ERROR(CpuStream::From(stream).Run([shard] {
      ShardTopKCpu(shard);
      return absl::OkStatus();
    }));
  }
  return absl::OkStatus();
}

}  // namespace muster
