#include "worker/collective/nccl/nccl_communicator.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"
#include "worker/collective/nccl/nccl_sum.h"

namespace muster {
namespace {

constexpr size_t kBarrierBytes = 16;

absl::Status CheckCount(size_t count) {
  if (count <= std::numeric_limits<uint32_t>::max()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a collective of ", count, " elements; the most is 4294967295"));
}

CollectiveStamp StampOf(CollectiveOp op, size_t count, DType dtype) {
  return {
      .op = op, .dtype = dtype, .rows = static_cast<uint32_t>(count), .row_bytes = SizeOf(dtype)};
}

// Of a group of one.
absl::Status CopyAlone(const void* from, void* to, size_t bytes, CudaStream stream) {
  if (from == to || bytes == 0) return absl::OkStatus();
  return CudaStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "copying");
}

}  // namespace

absl::Status NcclCommunicator::AllReduce(Stream& stream, void* data, size_t count, DType dtype) {
  MUSTER_RETURN_IF_ERROR(CheckCount(count));
  const size_t width = SizeOf(dtype), bytes = count * width;
  return peers_.Enqueue(
      stream, StampOf(CollectiveOp::kAllReduce, count, dtype),
      [&](CudaStream cuda) -> absl::Status {
        if (peers_.size() == 1) return absl::OkStatus();
        const size_t most = MostSummed(peers_, bytes, dtype);
        for (size_t done = 0; done < count; done += most) {
          std::byte* const piece = Advance(data, done * width);
          MUSTER_RETURN_IF_ERROR(EnqueueSum(
              peers_,
              {.send = piece, .out = piece, .count = std::min(most, count - done), .dtype = dtype},
              bytes, cuda));
        }
        return absl::OkStatus();
      });
}

absl::Status NcclCommunicator::AllGather(Stream& stream, const void* send, void* receive,
                                         size_t bytes) {
  return peers_.Enqueue(stream, {.op = CollectiveOp::kAllGather, .rows = 1, .row_bytes = bytes},
                        [&](CudaStream cuda) {
                          if (peers_.size() == 1) return CopyAlone(send, receive, bytes, cuda);
                          if (bytes == 0) return absl::OkStatus();
                          return peers_.Gather(send, receive, bytes, cuda);
                        });
}

absl::Status NcclCommunicator::ReduceScatter(Stream& stream, const void* send, void* receive,
                                             size_t count, DType dtype) {
  MUSTER_RETURN_IF_ERROR(CheckCount(count));
  const size_t width = SizeOf(dtype), most = peers_.box_bytes() / width;
  return peers_.Enqueue(stream, StampOf(CollectiveOp::kReduceScatter, count, dtype),
                        [&](CudaStream cuda) -> absl::Status {
                          if (peers_.size() == 1)
                            return CopyAlone(send, receive, count * width, cuda);
                          for (size_t done = 0; done < count; done += most) {
                            MUSTER_RETURN_IF_ERROR(ScatterPiece(
                                Advance(send, done * width), Advance(receive, done * width),
                                count * width, std::min(most, count - done), dtype, cuda));
                          }
                          return absl::OkStatus();
                        });
}

absl::Status NcclCommunicator::ScatterPiece(const void* send, void* receive, size_t stride_bytes,
                                            size_t count, DType dtype, CudaStream stream) {
  const size_t bytes = count * SizeOf(dtype);
  std::vector<NcclPeers::Piece> pieces;
  const void* parts[kMaxPeers];
  for (int rank = 0; rank < peers_.size(); ++rank) {
    const std::byte* const theirs = Advance(send, static_cast<size_t>(rank) * stride_bytes);
    pieces.push_back({theirs, bytes, peers_.inbox(rank), bytes});
    parts[rank] = rank == peers_.rank() ? theirs : peers_.inbox(rank);
  }
  MUSTER_RETURN_IF_ERROR(peers_.Exchange(pieces, stream));
  return EnqueueReduce(peers_, parts, /*residual=*/nullptr, receive, count, dtype, stream);
}

absl::Status NcclCommunicator::Broadcast(Stream& stream, void* data, size_t bytes, GroupRank root) {
  if (root.value() < 0 || root.value() >= group_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("root ", root.value(), " of a broadcast in ",
                                                   group_.DebugString(), " is no group rank"));
  }
  const CollectiveStamp stamp{.op = CollectiveOp::kBroadcast,
                              .root = static_cast<uint16_t>(root.value()),
                              .rows = 1,
                              .row_bytes = bytes};
  return peers_.Enqueue(stream, stamp, [&](CudaStream cuda) {
    if (peers_.size() == 1 || bytes == 0) return absl::OkStatus();
    return peers_.Broadcast(data, bytes, root.value(), cuda);
  });
}

absl::Status NcclCommunicator::Barrier(Stream& stream) {
  return peers_.Enqueue(stream, {.op = CollectiveOp::kBarrier}, [&](CudaStream cuda) {
    if (peers_.size() == 1) return absl::OkStatus();
    return peers_.Gather(peers_.outbox(0), peers_.inbox(0), kBarrierBytes, cuda);
  });
}

}  // namespace muster
