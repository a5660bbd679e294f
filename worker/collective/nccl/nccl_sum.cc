#include "worker/collective/nccl/nccl_sum.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "base/status_macros.h"
#include "kernels/cuda_status.h"
#include "kernels/reduce_ranks.h"

namespace muster {
namespace {

constexpr size_t kVectorBytes = 16;

absl::Status SumInOneShot(NcclPeers& peers, const NcclSum& sum, CudaStream stream) {
  const size_t bytes = sum.count * SizeOf(sum.dtype);
  MUSTER_RETURN_IF_ERROR(peers.Gather(sum.send, peers.inbox(0), bytes, stream));
  const void* parts[kMaxPeers];
  for (int rank = 0; rank < peers.size(); ++rank) parts[rank] = peers.inbox(0) + rank * bytes;
  return EnqueueReduce(peers, parts, sum.residual, sum.out, sum.count, sum.dtype, stream);
}

// Bytes [begin, end) of the message, which one rank sums.
struct Slice {
  size_t begin, end;
  size_t bytes() const { return end - begin; }
};

absl::Status SumInTwoShots(NcclPeers& peers, const NcclSum& sum, CudaStream stream) {
  const size_t world = static_cast<size_t>(peers.size()), bytes = sum.count * SizeOf(sum.dtype);
  const size_t stride = (bytes / world + 2 * kVectorBytes - 1) / kVectorBytes * kVectorBytes;
  const auto slice_of = [&](size_t rank) {
    return Slice{std::min(rank * stride, bytes), std::min((rank + 1) * stride, bytes)};
  };
  const Slice own = slice_of(static_cast<size_t>(peers.rank()));
  std::vector<NcclPeers::Piece> pieces;
  const void* parts[kMaxPeers];
  for (int rank = 0; rank < peers.size(); ++rank) {
    const Slice theirs = slice_of(static_cast<size_t>(rank));
    pieces.push_back(
        {Advance(sum.send, theirs.begin), theirs.bytes(), peers.inbox(rank), own.bytes()});
    parts[rank] = peers.inbox(rank);
  }
  parts[peers.rank()] = Advance(sum.send, own.begin);
  MUSTER_RETURN_IF_ERROR(peers.Exchange(pieces, stream));
  std::byte* const sums = peers.outbox(0);
  std::byte* const own_sums = sums + static_cast<size_t>(peers.rank()) * stride;
  MUSTER_RETURN_IF_ERROR(EnqueueReduce(peers, parts, Advance(sum.residual, own.begin), own_sums,
                                       own.bytes() / SizeOf(sum.dtype), sum.dtype, stream));
  MUSTER_RETURN_IF_ERROR(peers.Gather(own_sums, sums, stride, stream));
  if (sum.out == sums) return absl::OkStatus();
  return CudaStatus(cudaMemcpyAsync(sum.out, sums, bytes, cudaMemcpyDeviceToDevice, stream),
                    "copying a sum");
}

}  // namespace

absl::Status EnqueueReduce(NcclPeers& peers, const void* const* parts, const void* residual,
                           void* out, size_t count, DType dtype, CudaStream stream) {
  ReduceRanksParams params{
      .parts = {}, .world = peers.size(), .dtype = dtype, .out = out, .out_dtype = dtype};
  std::copy_n(parts, peers.size(), params.parts);
  if (residual != nullptr) params.parts[params.world++] = residual;
  return CudaStatus(ReduceRanksCuda(params, static_cast<int64_t>(count), stream), "summing");
}

size_t MostSummed(const NcclPeers& peers, size_t message_bytes, DType dtype) {
  // In two shots every slice may be longer than its share by two vectors.
  const size_t bytes = peers.InTwoShots(message_bytes) ? static_cast<size_t>(peers.size()) *
                                                             (peers.box_bytes() - 2 * kVectorBytes)
                                                       : peers.box_bytes();
  return bytes / SizeOf(dtype);
}

absl::Status EnqueueSum(NcclPeers& peers, const NcclSum& sum, size_t message_bytes,
                        CudaStream stream) {
  if (sum.count == 0) return absl::OkStatus();
  return peers.InTwoShots(message_bytes) ? SumInTwoShots(peers, sum, stream)
                                         : SumInOneShot(peers, sum, stream);
}

}  // namespace muster
