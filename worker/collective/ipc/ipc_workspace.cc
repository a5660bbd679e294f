#include "worker/collective/ipc/ipc_workspace.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/add_rms_norm.h"
#include "kernels/all_reduce_rms_norm.h"
#include "kernels/cp_combine.h"
#include "kernels/lse_merge.h"
#include "worker/collective/shm/workspace_ops.h"

namespace muster {
namespace {

uint64_t MessageBytes(const FusedAllReduceRmsNorm& op) {
  return static_cast<uint64_t>(op.tokens) * static_cast<uint64_t>(op.hidden) * SizeOf(op.dtype);
}

// Tokens of which a message has at most `capacity` bytes, when one has `token_bytes`.
absl::StatusOr<int64_t> TokensThatFit(const CollectiveStamp& stamp, int64_t token_bytes,
                                      int64_t capacity) {
  if (token_bytes <= capacity) return capacity / token_bytes;
  return absl::InvalidArgumentError(absl::StrCat(stamp.DebugString(), " needs ", token_bytes,
                                                 " bytes of workspace per token; it has ",
                                                 capacity));
}

CpCombine SliceOf(const CpCombine& op, int64_t begin, int64_t count, int ranks) {
  const int64_t width = int64_t{op.heads} * op.head_dim;
  const int64_t bytes = static_cast<int64_t>(SizeOf(op.dtype));
  CpCombine slice = op;
  slice.partial = static_cast<const std::byte*>(op.partial) + begin * width * bytes;
  slice.lse = op.lse + begin * op.heads;
  slice.out = static_cast<std::byte*>(op.out) + begin * width / ranks * bytes;
  slice.tokens = static_cast<int>(count);
  return slice;
}

}  // namespace

CudaLaunch IpcAddRmsNorm(const FusedAllReduceRmsNorm& op, const void* sum, CudaStream stream) {
  return AddRmsNormCuda({.a = sum,
                         .residual_in = op.residual_in,
                         .weight = op.weight,
                         .eps = op.eps,
                         .hidden = op.hidden,
                         .residual_out = op.residual_out,
                         .out = op.norm_out,
                         .activation = op.dtype},
                        op.tokens, stream);
}

absl::Status IpcWorkspace::Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) {
  const PeerLayout& layout = peers_.layout();
  const CollectiveStamp stamp = StampOf(op);
  MUSTER_RETURN_IF_ERROR(CheckOp(op, static_cast<uint64_t>(layout.slot_bytes)));
  if (peers_.size() == 1) {
    return peers_.Enqueue(stream, stamp, [&](const Peers&, const PeerStamp&, CudaStream cuda) {
      return IpcAddRmsNorm(op, op.partial, cuda);
    });
  }
  const bool two_shots = peers_.InTwoShots(MessageBytes(op));
  MUSTER_ASSIGN_OR_RETURN(
      const int64_t most,
      two_shots ? TokensThatFit(stamp, TwoShotBytes(1, op.hidden, op.dtype, peers_.size()),
                                layout.slice_bytes)
                : TokensThatFit(stamp, OneShotBytes(1, op.hidden, op.dtype), layout.slot_bytes));
  // Slices of nearly equal length: a short last one would cost as much waiting as a full one.
  const int64_t slices = (op.tokens + most - 1) / most;
  for (int64_t i = 0; i < slices; ++i) {
    const int64_t begin = op.tokens * i / slices, end = op.tokens * (i + 1) / slices;
    MUSTER_RETURN_IF_ERROR(EnqueueSlice(stream, SliceOf(op, begin, end - begin), two_shots, stamp));
  }
  return absl::OkStatus();
}

absl::Status IpcWorkspace::EnqueueSlice(Stream& stream, const FusedAllReduceRmsNorm& op,
                                        bool two_shots, const CollectiveStamp& stamp) {
  return peers_.Enqueue(stream, stamp,
                        [&](const Peers& peers, const PeerStamp& device_stamp, CudaStream cuda) {
                          const AllReduceRmsNormCudaParams params{.peers = peers,
                                                                  .stamp = device_stamp,
                                                                  .partial = op.partial,
                                                                  .residual_in = op.residual_in,
                                                                  .weight = op.weight,
                                                                  .eps = op.eps,
                                                                  .hidden = op.hidden,
                                                                  .residual_out = op.residual_out,
                                                                  .norm_out = op.norm_out,
                                                                  .dtype = op.dtype};
                          return two_shots ? AllReduceRmsNormTwoShotCuda(params, op.tokens, cuda)
                                           : AllReduceRmsNormOneShotCuda(params, op.tokens, cuda);
                        });
}

absl::Status IpcWorkspace::CombineAlone(Stream& stream, const CpCombine& op,
                                        const CollectiveStamp& stamp) {
  const int64_t width = int64_t{op.heads} * op.head_dim;
  LseMergeParams params{.part_row_stride = width,
                        .part_column = 0,
                        .lse_row_stride = op.heads,
                        .world = 1,
                        .head_dim = op.head_dim,
                        .columns = {0, width},
                        .out = op.out,
                        .out_row_stride = width,
                        .activation = op.dtype};
  params.parts[0] = op.partial;
  params.lse[0] = op.lse;
  return peers_.Enqueue(stream, stamp, [&](const Peers&, const PeerStamp&, CudaStream cuda) {
    return LseMergeCuda(params, op.tokens, cuda);
  });
}

absl::Status IpcWorkspace::Enqueue(Stream& stream, const CpCombine& op) {
  const PeerLayout& layout = peers_.layout();
  const CollectiveStamp stamp = StampOf(op);
  MUSTER_RETURN_IF_ERROR(CheckOp(op, peers_.size(), static_cast<uint64_t>(layout.slot_bytes)));
  if (peers_.size() == 1) return CombineAlone(stream, op, stamp);
  MUSTER_ASSIGN_OR_RETURN(
      const int64_t most,
      TokensThatFit(stamp, CpCombineBytes(1, op.heads, op.head_dim, op.dtype, peers_.size()),
                    layout.slot_bytes));
  for (int64_t begin = 0; begin < op.tokens; begin += most) {
    const CpCombine slice =
        SliceOf(op, begin, std::min<int64_t>(most, op.tokens - begin), peers_.size());
    MUSTER_RETURN_IF_ERROR(peers_.Enqueue(
        stream, stamp, [&](const Peers& peers, const PeerStamp& device_stamp, CudaStream cuda) {
          return CpCombineCuda({.peers = peers,
                                .stamp = device_stamp,
                                .partial = slice.partial,
                                .lse = slice.lse,
                                .out = slice.out,
                                .heads = slice.heads,
                                .head_dim = slice.head_dim,
                                .dtype = slice.dtype},
                               slice.tokens, cuda);
        }));
  }
  return absl::OkStatus();
}

}  // namespace muster
