#include "worker/collective/shm/shm_communicator.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/reduce_ranks.h"
#include "worker/collective/shm/shm_all_reduce.h"
#include "worker/device/cpu/cpu_stream.h"

namespace muster {
namespace {

absl::Status CheckCount(size_t count) {
  if (count <= std::numeric_limits<uint32_t>::max()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a collective of ", count, " elements; the most is 4294967295"));
}

}  // namespace

absl::Status ShmCommunicator::AllReduce(Stream& stream, void* data, size_t count, DType dtype) {
  MUSTER_RETURN_IF_ERROR(CheckCount(count));
  CpuStream& cpu = CpuStream::From(stream);
  return cpu.Run([this, &pool = cpu.pool(), data, count, dtype] {
    return ShmAllReduce(peers_, pool, data, data, count, dtype);
  });
}

absl::Status ShmCommunicator::AllGather(Stream& stream, const void* send, void* receive,
                                        size_t bytes) {
  CpuStream& cpu = CpuStream::From(stream);
  return cpu.Run([this, &pool = cpu.pool(), send, receive, bytes] {
    return GatherNow(pool, static_cast<const std::byte*>(send), static_cast<std::byte*>(receive),
                     bytes);
  });
}

absl::Status ShmCommunicator::GatherNow(ThreadPool& pool, const std::byte* send, std::byte* receive,
                                        size_t bytes) {
  const CollectiveStamp stamp{.op = CollectiveOp::kAllGather, .rows = 1, .row_bytes = bytes};
  size_t done = 0;
  do {
    const size_t piece = std::min<size_t>(peers_.slab_bytes(), bytes - done);
    if (peers_.size() > 1) ParallelCopy(pool, peers_.next_slab(), send + done, piece);
    MUSTER_RETURN_IF_ERROR(peers_.Exchange(stamp));
    for (int rank = 0; rank < peers_.size(); ++rank) {
      const std::byte* from = rank == peers_.rank() ? send + done : peers_.slab(rank);
      ParallelCopy(pool, receive + static_cast<size_t>(rank) * bytes + done, from, piece);
    }
    done += piece;
  } while (done < bytes);
  return absl::OkStatus();
}

absl::Status ShmCommunicator::ReduceScatter(Stream& stream, const void* send, void* receive,
                                            size_t count, DType dtype) {
  MUSTER_RETURN_IF_ERROR(CheckCount(count));
  return CpuStream::From(stream).Run([this, send, receive, count, dtype] {
    return ScatterNow(static_cast<const std::byte*>(send), static_cast<std::byte*>(receive), count,
                      dtype);
  });
}

absl::Status ShmCommunicator::ScatterNow(const std::byte* send, std::byte* receive, size_t count,
                                         DType dtype) {
  const size_t width = SizeOf(dtype);
  const size_t size = static_cast<size_t>(peers_.size());
  const CollectiveStamp stamp{.op = CollectiveOp::kReduceScatter,
                              .dtype = dtype,
                              .rows = static_cast<uint32_t>(count),
                              .row_bytes = width};
  if (size == 1) {
    if (send != receive && count != 0) std::memcpy(receive, send, count * width);
    return peers_.Exchange(stamp);
  }
  const size_t most = peers_.slab_bytes() / width / size;
  size_t done = 0;
  do {
    // The slab holds one piece for each rank, in rank order.
    const size_t piece = std::min(most, count - done);
    for (size_t rank = 0; rank < size && piece != 0; ++rank) {
      std::memcpy(peers_.next_slab() + rank * piece * width, send + (rank * count + done) * width,
                  piece * width);
    }
    MUSTER_RETURN_IF_ERROR(peers_.Exchange(stamp));
    ReduceRanksParams params{
        .world = peers_.size(), .dtype = dtype, .out = receive + done * width, .out_dtype = dtype};
    for (int rank = 0; rank < peers_.size(); ++rank) {
      params.parts[rank] = peers_.slab(rank) + static_cast<size_t>(peers_.rank()) * piece * width;
    }
    ReduceRanksCpu(params, {0, static_cast<int64_t>(piece)});
    done += piece;
  } while (done < count);
  return absl::OkStatus();
}

absl::Status ShmCommunicator::Broadcast(Stream& stream, void* data, size_t bytes, GroupRank root) {
  if (root.value() < 0 || root.value() >= group_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("root ", root.value(), " of a broadcast in ",
                                                   group_.DebugString(), " is no group rank"));
  }
  CpuStream& cpu = CpuStream::From(stream);
  return cpu.Run([this, &pool = cpu.pool(), data, bytes, root] {
    return BroadcastNow(pool, static_cast<std::byte*>(data), bytes, root);
  });
}

absl::Status ShmCommunicator::BroadcastNow(ThreadPool& pool, std::byte* data, size_t bytes,
                                           GroupRank root) {
  const CollectiveStamp stamp{.op = CollectiveOp::kBroadcast,
                              .root = static_cast<uint16_t>(root.value()),
                              .rows = 1,
                              .row_bytes = bytes};
  const bool is_root = root.value() == peers_.rank();
  size_t done = 0;
  do {
    const size_t piece = std::min<size_t>(peers_.slab_bytes(), bytes - done);
    if (is_root && peers_.size() > 1) ParallelCopy(pool, peers_.next_slab(), data + done, piece);
    MUSTER_RETURN_IF_ERROR(peers_.Exchange(stamp));
    if (!is_root) ParallelCopy(pool, data + done, peers_.slab(root.value()), piece);
    done += piece;
  } while (done < bytes);
  return absl::OkStatus();
}

absl::Status ShmCommunicator::Barrier(Stream& stream) {
  return CpuStream::From(stream).Run(
      [this] { return peers_.Exchange({.op = CollectiveOp::kBarrier}); });
}

}  // namespace muster
