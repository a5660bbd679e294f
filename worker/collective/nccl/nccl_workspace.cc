#include "worker/collective/nccl/nccl_workspace.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "base/status_macros.h"
#include "kernels/add_rms_norm.h"
#include "kernels/cuda_status.h"
#include "kernels/lse_merge.h"
#include "worker/collective/nccl/nccl_sum.h"
#include "worker/collective/shm/workspace_ops.h"

namespace muster {
namespace {

static_assert(kMaxMergePeers == kMaxPeers, "groups of any size combine");

size_t RoundUp(size_t bytes) { return (bytes + 15) / 16 * 16; }

// `sum` holds the residual already when there were others to sum with.
absl::Status Normalise(const FusedAllReduceRmsNorm& op, const void* sum, const void* residual_in,
                       CudaStream stream) {
  return CudaStatus(AddRmsNormCuda({.a = sum,
                                    .residual_in = residual_in,
                                    .weight = op.weight,
                                    .eps = op.eps,
                                    .hidden = op.hidden,
                                    .residual_out = op.residual_out,
                                    .out = op.norm_out,
                                    .activation = op.dtype},
                                   op.tokens, stream),
                    "residual and norm");
}

CpCombine TokensOf(const CpCombine& op, int64_t begin, int64_t count, int ranks) {
  const size_t row = static_cast<size_t>(op.heads) * op.head_dim * SizeOf(op.dtype);
  CpCombine slice = op;
  slice.partial = Advance(op.partial, static_cast<size_t>(begin) * row);
  slice.lse = op.lse + begin * op.heads;
  slice.out = Advance(op.out, static_cast<size_t>(begin) * row / static_cast<size_t>(ranks));
  slice.tokens = static_cast<int>(count);
  return slice;
}

size_t LseBytes(const CpCombine& op) {
  return static_cast<size_t>(op.tokens) * static_cast<size_t>(op.heads) * sizeof(float);
}

}  // namespace

absl::Status NcclWorkspace::Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) {
  MUSTER_RETURN_IF_ERROR(CheckOp(op, peers_.slab_bytes()));
  return peers_.Enqueue(stream, StampOf(op), [&](CudaStream cuda) -> absl::Status {
    if (peers_.size() == 1) return Normalise(op, op.partial, op.residual_in, cuda);
    const size_t bytes =
        static_cast<size_t>(op.tokens) * static_cast<size_t>(op.hidden) * SizeOf(op.dtype);
    const int64_t most =
        static_cast<int64_t>(MostSummed(peers_, bytes, op.dtype)) / int64_t{op.hidden};
    for (int64_t begin = 0; begin < op.tokens; begin += most) {
      MUSTER_RETURN_IF_ERROR(
          ReduceSlice(SliceOf(op, begin, std::min<int64_t>(most, op.tokens - begin)), bytes, cuda));
    }
    return absl::OkStatus();
  });
}

absl::Status NcclWorkspace::ReduceSlice(const FusedAllReduceRmsNorm& op, size_t message_bytes,
                                        CudaStream stream) {
  std::byte* const sum = peers_.outbox(0);
  MUSTER_RETURN_IF_ERROR(
      EnqueueSum(peers_,
                 {.send = op.partial,
                  .residual = op.residual_in,
                  .out = sum,
                  .count = static_cast<size_t>(op.tokens) * static_cast<size_t>(op.hidden),
                  .dtype = op.dtype},
                 message_bytes, stream));
  return Normalise(op, sum, /*residual_in=*/nullptr, stream);
}

absl::Status NcclWorkspace::Enqueue(Stream& stream, const CpCombine& op) {
  MUSTER_RETURN_IF_ERROR(CheckOp(op, peers_.size(), peers_.slab_bytes()));
  CollectiveStamp stamp = StampOf(op);
  stamp.dtype = op.dtype;
  return peers_.Enqueue(stream, stamp, [&](CudaStream cuda) -> absl::Status {
    const size_t row = RoundUp(PartBytes(TokensOf(op, 0, 1, peers_.size()))) +
                       static_cast<size_t>(op.heads) * sizeof(float);
    const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(peers_.box_bytes() / row));
    for (int64_t begin = 0; begin < op.tokens; begin += most) {
      MUSTER_RETURN_IF_ERROR(CombineSlice(
          TokensOf(op, begin, std::min<int64_t>(most, op.tokens - begin), peers_.size()), cuda));
    }
    return absl::OkStatus();
  });
}

size_t NcclWorkspace::PartBytes(const CpCombine& op) const {
  const size_t row = static_cast<size_t>(op.heads) * op.head_dim * SizeOf(op.dtype);
  return static_cast<size_t>(op.tokens) * row / static_cast<size_t>(peers_.size());
}

absl::Status NcclWorkspace::Pack(const CpCombine& op, CudaStream stream) {
  const size_t row = static_cast<size_t>(op.heads) * op.head_dim * SizeOf(op.dtype);
  const size_t slice = row / static_cast<size_t>(peers_.size());
  for (int rank = 0; rank < peers_.size(); ++rank) {
    MUSTER_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpy2DAsync(peers_.outbox(rank), slice,
                          Advance(op.partial, static_cast<size_t>(rank) * slice), row, slice,
                          static_cast<size_t>(op.tokens), cudaMemcpyDeviceToDevice, stream),
        "packing slices of heads"));
  }
  return absl::OkStatus();
}

absl::Status NcclWorkspace::CombineSlice(const CpCombine& op, CudaStream stream) {
  if (peers_.size() == 1) return Merge(op, stream);
  MUSTER_RETURN_IF_ERROR(Pack(op, stream));
  // Two messages for each rank: the LSE needs no packing, since all get it whole.
  std::vector<NcclPeers::Piece> parts, lse;
  for (int rank = 0; rank < peers_.size(); ++rank) {
    parts.push_back({peers_.outbox(rank), PartBytes(op), peers_.inbox(rank), PartBytes(op)});
    lse.push_back(
        {op.lse, LseBytes(op), peers_.inbox(rank) + RoundUp(PartBytes(op)), LseBytes(op)});
  }
  MUSTER_RETURN_IF_ERROR(peers_.Exchange(parts, stream));
  MUSTER_RETURN_IF_ERROR(peers_.Exchange(lse, stream));
  return Merge(op, stream);
}

absl::Status NcclWorkspace::Merge(const CpCombine& op, CudaStream stream) {
  const int64_t slice = int64_t{op.heads} * op.head_dim / peers_.size();
  const int64_t begin = slice * peers_.rank();
  LseMergeParams params{.part_row_stride = slice,
                        .part_column = begin,
                        .lse_row_stride = op.heads,
                        .world = peers_.size(),
                        .head_dim = op.head_dim,
                        .columns = {begin, begin + slice},
                        .out = op.out,
                        .out_row_stride = slice,
                        .activation = op.dtype};
  for (int rank = 0; rank < peers_.size(); ++rank) {
    params.parts[rank] = peers_.inbox(rank);
    params.lse[rank] = reinterpret_cast<const float*>(peers_.inbox(rank) + RoundUp(PartBytes(op)));
  }
  const bool alone = peers_.size() == 1;
  params.parts[peers_.rank()] = alone ? op.partial : peers_.outbox(peers_.rank());
  params.lse[peers_.rank()] = op.lse;
  return CudaStatus(LseMergeCuda(params, op.tokens, stream), "merging by LSE");
}

}  // namespace muster
