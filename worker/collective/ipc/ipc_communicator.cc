#include "worker/collective/ipc/ipc_communicator.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/peer_collectives.h"

namespace muster {
namespace {

absl::Status CheckCount(size_t count) {
  if (count <= std::numeric_limits<uint32_t>::max()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a collective of ", count, " elements; the most is 4294967295"));
}

const std::byte* Advance(const void* data, size_t bytes) {
  return static_cast<const std::byte*>(data) + bytes;
}
std::byte* Advance(void* data, size_t bytes) { return static_cast<std::byte*>(data) + bytes; }

// Of a group of one.
absl::Status CopyAlone(IpcPeers& peers, Stream& stream, const CollectiveStamp& stamp,
                       const void* from, void* to, size_t bytes) {
  return peers.Enqueue(stream, stamp,
                       [&](const Peers&, const PeerStamp&, CudaStream cuda) -> CudaLaunch {
                         if (from == to || bytes == 0) return {};
                         return {cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda)};
                       });
}

// `stride`: elements between what `send` holds for one rank and for the next; 0: the same for all.
absl::Status Reduce(IpcPeers& peers, Stream& stream, const CollectiveStamp& stamp, const void* send,
                    void* receive, size_t count, size_t stride) {
  const size_t width = SizeOf(stamp.dtype);
  if (peers.size() == 1) return CopyAlone(peers, stream, stamp, send, receive, count * width);
  const size_t most = static_cast<size_t>(peers.layout().slot_bytes) / width;
  size_t done = 0;
  do {
    const size_t piece = std::min(most, count - done);
    MUSTER_RETURN_IF_ERROR(peers.Enqueue(
        stream, stamp,
        [&](const Peers& device_peers, const PeerStamp& device_stamp, CudaStream cuda) {
          return PeerReduceCuda({.peers = device_peers,
                                 .stamp = device_stamp,
                                 .send = Advance(send, done * width),
                                 .receive = Advance(receive, done * width),
                                 .count = static_cast<int64_t>(piece),
                                 .send_stride = static_cast<int64_t>(stride),
                                 .dtype = stamp.dtype},
                                cuda);
        }));
    done += piece;
  } while (done < count);
  return absl::OkStatus();
}

// `root`: of a broadcast, whose stride is 0; else kAllSend.
absl::Status Gather(IpcPeers& peers, Stream& stream, const CollectiveStamp& stamp, const void* send,
                    void* receive, size_t bytes, size_t stride, int32_t root) {
  if (peers.size() == 1) return CopyAlone(peers, stream, stamp, send, receive, bytes);
  const size_t most = static_cast<size_t>(MostGathered(peers.layout()));
  size_t done = 0;
  do {
    const size_t piece = std::min(most, bytes - done);
    MUSTER_RETURN_IF_ERROR(peers.Enqueue(
        stream, stamp,
        [&](const Peers& device_peers, const PeerStamp& device_stamp, CudaStream cuda) {
          return PeerGatherCuda({.peers = device_peers,
                                 .stamp = device_stamp,
                                 .send = Advance(send, done),
                                 .receive = Advance(receive, done),
                                 .bytes = static_cast<int64_t>(piece),
                                 .receive_stride = static_cast<int64_t>(stride),
                                 .root = root},
                                cuda);
        }));
    done += piece;
  } while (done < bytes);
  return absl::OkStatus();
}

}  // namespace

absl::Status IpcAllReduce(IpcPeers& peers, Stream& stream, const void* send, void* receive,
                          size_t count, DType dtype) {
  MUSTER_RETURN_IF_ERROR(CheckCount(count));
  const CollectiveStamp stamp{.op = CollectiveOp::kAllReduce,
                              .dtype = dtype,
                              .rows = static_cast<uint32_t>(count),
                              .row_bytes = SizeOf(dtype)};
  return Reduce(peers, stream, stamp, send, receive, count, /*stride=*/0);
}

absl::Status IpcCommunicator::AllReduce(Stream& stream, void* data, size_t count, DType dtype) {
  return IpcAllReduce(peers_, stream, data, data, count, dtype);
}

absl::Status IpcCommunicator::AllGather(Stream& stream, const void* send, void* receive,
                                        size_t bytes) {
  return Gather(peers_, stream, {.op = CollectiveOp::kAllGather, .rows = 1, .row_bytes = bytes},
                send, receive, bytes, /*stride=*/bytes, kAllSend);
}

absl::Status IpcCommunicator::ReduceScatter(Stream& stream, const void* send, void* receive,
                                            size_t count, DType dtype) {
  MUSTER_RETURN_IF_ERROR(CheckCount(count));
  const CollectiveStamp stamp{.op = CollectiveOp::kReduceScatter,
                              .dtype = dtype,
                              .rows = static_cast<uint32_t>(count),
                              .row_bytes = SizeOf(dtype)};
  return Reduce(peers_, stream, stamp, send, receive, count, /*stride=*/count);
}

absl::Status IpcCommunicator::Broadcast(Stream& stream, void* data, size_t bytes, GroupRank root) {
  if (root.value() < 0 || root.value() >= group_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("root ", root.value(), " of a broadcast in ",
                                                   group_.DebugString(), " is no group rank"));
  }
  const CollectiveStamp stamp{.op = CollectiveOp::kBroadcast,
                              .root = static_cast<uint16_t>(root.value()),
                              .rows = 1,
                              .row_bytes = bytes};
  return Gather(peers_, stream, stamp, data, data, bytes, /*stride=*/0, root.value());
}

absl::Status IpcCommunicator::Barrier(Stream& stream) {
  return Gather(peers_, stream, {.op = CollectiveOp::kBarrier}, nullptr, nullptr, 0, 0, kAllSend);
}

}  // namespace muster
