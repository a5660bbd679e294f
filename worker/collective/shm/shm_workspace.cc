#include "worker/collective/shm/shm_workspace.h"

#include <algorithm>
#include <cstring>

#include "base/status_macros.h"
#include "kernels/all_reduce_rms_norm.h"
#include "kernels/lse_merge.h"
#include "kernels/reduce_ranks.h"
#include "worker/collective/shm/shm_all_reduce.h"
#include "worker/collective/shm/workspace_ops.h"
#include "worker/device/cpu/cpu_stream.h"

namespace muster {
namespace {

int64_t GrainOf(uint64_t row_bytes) {
  return std::max<int64_t>(1, kShmParallelBytes / static_cast<int64_t>(row_bytes));
}

// All but the parts.
AllReduceRmsNormParams ParamsOf(const FusedAllReduceRmsNorm& op) {
  return {.world = 0,
          .dtype = op.dtype,
          .residual_in = op.residual_in,
          .residual_out = op.residual_out,
          .residual_dtype = op.dtype,
          .weight = op.weight,
          .eps = op.eps,
          .hidden = op.hidden,
          .norm_out = op.norm_out,
          .norm_dtype = op.dtype};
}

void ReduceAndNormalise(ThreadPool& pool, const AllReduceRmsNormParams& params, int64_t rows) {
  const uint64_t row_bytes = static_cast<uint64_t>(params.hidden) * sizeof(float);
  pool.ForRanges(rows, GrainOf(row_bytes), [&](int64_t begin, int64_t end) {
    AllReduceRmsNormCpu(params, {begin, end});
  });
}

}  // namespace

size_t ShmWorkspace::bytes() const {
  return peers_.size() == 1 ? 0 : ShmPeers::SegmentBytes(peers_.slab_bytes());
}

absl::Status ShmWorkspace::Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) {
  MUSTER_RETURN_IF_ERROR(CheckOp(op, peers_.slab_bytes()));
  CpuStream& cpu = CpuStream::From(stream);
  return cpu.Run([this, &pool = cpu.pool(), op] { return RunNow(pool, op); });
}

absl::Status ShmWorkspace::RunNow(ThreadPool& pool, const FusedAllReduceRmsNorm& op) {
  const CollectiveStamp stamp = StampOf(op);
  // Slices of nearly equal length: a short last one would cost as many exchanges as a full one.
  const int64_t most = static_cast<int64_t>(peers_.slab_bytes() / SlabRowBytes(op));
  const int64_t slices = (op.tokens + most - 1) / most;
  for (int64_t i = 0; i < slices; ++i) {
    const int64_t begin = op.tokens * i / slices, end = op.tokens * (i + 1) / slices;
    MUSTER_RETURN_IF_ERROR(ReduceSlice(pool, SliceOf(op, begin, end - begin), stamp));
  }
  return absl::OkStatus();
}

absl::Status ShmWorkspace::ReduceSlice(ThreadPool& pool, const FusedAllReduceRmsNorm& op,
                                       const CollectiveStamp& stamp) {
  const size_t bytes = static_cast<size_t>(op.tokens) * op.hidden * SizeOf(op.dtype);
  if (peers_.size() > 1) ParallelCopy(pool, peers_.next_slab(), op.partial, bytes);
  MUSTER_RETURN_IF_ERROR(peers_.Exchange(stamp));
  if (peers_.InTwoShots(bytes)) return FinishInTwoShots(pool, op, stamp);
  AllReduceRmsNormParams params = ParamsOf(op);
  params.world = peers_.size();
  for (int rank = 0; rank < peers_.size(); ++rank) {
    params.parts[rank] = rank == peers_.rank() ? op.partial : peers_.slab(rank);
  }
  ReduceAndNormalise(pool, params, op.tokens);
  return absl::OkStatus();
}

absl::Status ShmWorkspace::FinishInTwoShots(ThreadPool& pool, const FusedAllReduceRmsNorm& op,
                                            const CollectiveStamp& stamp) {
  const int size = peers_.size(), self = peers_.rank();
  const auto first_row = [&](int rank) { return int64_t{op.tokens} * rank / size; };
  ReduceRanksParams sum{
      .world = size, .dtype = op.dtype, .out = peers_.next_slab(), .out_dtype = DType::kFloat32};
  for (int rank = 0; rank < size; ++rank) {
    sum.parts[rank] = rank == self ? op.partial : peers_.slab(rank);
  }
  const int64_t begin = first_row(self), end = first_row(self + 1);
  pool.ForRanges(end - begin, GrainOf(SlabRowBytes(op)), [&](int64_t from, int64_t to) {
    ReduceRanksCpu(sum, {(begin + from) * op.hidden, (begin + to) * op.hidden});
  });
  MUSTER_RETURN_IF_ERROR(peers_.Exchange(stamp));
  for (int rank = 0; rank < size; ++rank) {
    const int64_t from = first_row(rank), to = first_row(rank + 1);
    AllReduceRmsNormParams params = ParamsOf(SliceOf(op, from, to - from));
    params.world = 1;
    params.dtype = DType::kFloat32;
    params.parts[0] = peers_.slab(rank) + static_cast<size_t>(from) * SlabRowBytes(op);
    ReduceAndNormalise(pool, params, to - from);
  }
  return absl::OkStatus();
}

absl::Status ShmWorkspace::Enqueue(Stream& stream, const CpCombine& op) {
  if (op.dtype != DType::kFloat32) {
    return absl::InvalidArgumentError("cp-combine on the CPU takes float32 only");
  }
  MUSTER_RETURN_IF_ERROR(CheckOp(op, peers_.size(), peers_.slab_bytes()));
  CpuStream& cpu = CpuStream::From(stream);
  return cpu.Run([this, &pool = cpu.pool(), op] { return RunNow(pool, op); });
}

absl::Status ShmWorkspace::RunNow(ThreadPool& pool, const CpCombine& op) {
  const CollectiveStamp stamp = StampOf(op);
  const int64_t width = int64_t{op.heads} * op.head_dim;
  const int64_t slice = width / peers_.size();
  const int64_t most = static_cast<int64_t>(peers_.slab_bytes() / SlabRowBytes(op));
  LseMergeParams params{.part_row_stride = width,
                        .part_column = 0,
                        .lse_row_stride = op.heads,
                        .world = peers_.size(),
                        .head_dim = op.head_dim,
                        .columns = {slice * peers_.rank(), slice * (peers_.rank() + 1)},
                        .out_row_stride = slice};
  for (int64_t begin = 0; begin < op.tokens; begin += most) {
    const int64_t rows = std::min<int64_t>(most, op.tokens - begin);
    const float* partial = static_cast<const float*>(op.partial) + begin * width;
    const float* lse = op.lse + begin * op.heads;
    if (peers_.size() > 1) {
      float* own = reinterpret_cast<float*>(peers_.next_slab());
      ParallelCopy(pool, own, partial, static_cast<size_t>(rows * width) * sizeof(float));
      std::memcpy(own + rows * width, lse, static_cast<size_t>(rows) * op.heads * sizeof(float));
    }
    MUSTER_RETURN_IF_ERROR(peers_.Exchange(stamp));
    for (int rank = 0; rank < peers_.size(); ++rank) {
      const bool self = rank == peers_.rank();
      const float* slab = self ? nullptr : reinterpret_cast<const float*>(peers_.slab(rank));
      params.parts[rank] = self ? partial : slab;
      params.lse[rank] = self ? lse : slab + rows * width;
    }
    params.out = static_cast<float*>(op.out) + begin * slice;
    pool.ForRanges(rows, GrainOf(SlabRowBytes(op)), [&](int64_t from, int64_t to) {
      LseMergeCpu(params, {from, to});
    });
  }
  return absl::OkStatus();
}

}  // namespace muster
