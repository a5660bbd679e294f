#include "worker/collective/shm/shm_unfused_workspace.h"

#include <algorithm>
#include <cstring>

#include "base/status_macros.h"
#include "kernels/add_rms_norm.h"
#include "kernels/all_reduce_rms_norm.h"
#include "worker/collective/shm/shm_all_reduce.h"
#include "worker/collective/shm/workspace_ops.h"
#include "worker/device/cpu/cpu_stream.h"

namespace muster {
namespace {

// norm_out holds the sum.
void AddAndNormalise(ThreadPool& pool, const FusedAllReduceRmsNorm& op) {
  float* sum = static_cast<float*>(op.norm_out);
  const AddRmsNormParams params{.a = sum,
                                .residual_in = static_cast<const float*>(op.residual_in),
                                .weight = op.weight,
                                .eps = op.eps,
                                .hidden = op.hidden,
                                .residual_out = static_cast<float*>(op.residual_out),
                                .out = sum};
  const int64_t grain = std::max<int64_t>(1, kShmParallelBytes / (op.hidden * 4));
  pool.ForRanges(op.tokens, grain, [&](int64_t begin, int64_t end) {
    AddRmsNormCpu(params, {begin, end});
  });
}

// The same for 16-bit values, which need the sum apart from norm_out.
void AddAndNormaliseNarrow(const FusedAllReduceRmsNorm& op, const void* sum) {
  AllReduceRmsNormParams params{.world = 1,
                                .dtype = op.dtype,
                                .residual_in = op.residual_in,
                                .residual_out = op.residual_out,
                                .residual_dtype = op.dtype,
                                .weight = op.weight,
                                .eps = op.eps,
                                .hidden = op.hidden,
                                .norm_out = op.norm_out,
                                .norm_dtype = op.dtype};
  params.parts[0] = sum;
  AllReduceRmsNormCpu(params, {0, op.tokens});
}

}  // namespace

absl::Status ShmUnfusedWorkspace::Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) {
  MUSTER_RETURN_IF_ERROR(CheckOp(op, peers_.slab_bytes()));
  CpuStream& cpu = CpuStream::From(stream);
  return cpu.Run([this, &pool = cpu.pool(), op] { return RunNow(pool, op); });
}

absl::Status ShmUnfusedWorkspace::RunNow(ThreadPool& pool, const FusedAllReduceRmsNorm& op) {
  const size_t count = static_cast<size_t>(op.tokens) * op.hidden;
  if (op.dtype != DType::kFloat32 && peers_.size() == 1) {
    AddAndNormaliseNarrow(op, op.partial);
    return absl::OkStatus();
  }
  MUSTER_RETURN_IF_ERROR(ShmAllReduce(peers_, pool, op.partial, op.norm_out, count, op.dtype));
  if (op.dtype == DType::kFloat32) {
    AddAndNormalise(pool, op);
    return absl::OkStatus();
  }
  // Until the next exchange the next slab is nobody's: it takes the sums, slice by slice.
  const int64_t most = static_cast<int64_t>(peers_.slab_bytes() / SlabRowBytes(op));
  for (int64_t begin = 0; begin < op.tokens; begin += most) {
    const FusedAllReduceRmsNorm slice =
        SliceOf(op, begin, std::min<int64_t>(most, op.tokens - begin));
    std::memcpy(peers_.next_slab(), slice.norm_out,
                static_cast<size_t>(slice.tokens) * op.hidden * SizeOf(op.dtype));
    AddAndNormaliseNarrow(slice, peers_.next_slab());
  }
  return absl::OkStatus();
}

}  // namespace muster
