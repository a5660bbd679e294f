#include "worker/collective/shm/shm_all_reduce.h"

#include <algorithm>
#include <cstring>

#include "base/status_macros.h"
#include "kernels/reduce_ranks.h"

namespace muster {
namespace {

// Slices of a two-shot reduction begin at multiples of this, so that they share no cache line.
constexpr size_t kSliceElements = 64;

struct Chunk {
  const std::byte* send;
  std::byte* receive;
  size_t count;
  DType dtype;
};

void Reduce(ThreadPool& pool, const ReduceRanksParams& params, IndexRange elements) {
  const int64_t grain = kShmParallelBytes / static_cast<int64_t>(SizeOf(params.dtype));
  pool.ForRanges(elements.end - elements.begin, grain, [&](int64_t begin, int64_t end) {
    ReduceRanksCpu(params, {elements.begin + begin, elements.begin + end});
  });
}

ReduceRanksParams ParamsOf(const ShmPeers& peers, const Chunk& chunk, void* out) {
  ReduceRanksParams params{
      .world = peers.size(), .dtype = chunk.dtype, .out = out, .out_dtype = chunk.dtype};
  for (int rank = 0; rank < peers.size(); ++rank) {
    params.parts[rank] = rank == peers.rank() ? chunk.send : peers.slab(rank);
  }
  return params;
}

// The first element of each rank's slice; of rank `size`, the end.
size_t SliceBegin(const ShmPeers& peers, size_t count, int rank) {
  const size_t size = static_cast<size_t>(peers.size());
  const size_t slice = (count + size - 1) / size;
  const size_t rounded = (slice + kSliceElements - 1) / kSliceElements * kSliceElements;
  return std::min(count, rounded * static_cast<size_t>(rank));
}

absl::Status FinishInTwoShots(ShmPeers& peers, ThreadPool& pool, const Chunk& chunk,
                              const CollectiveStamp& stamp) {
  const int self = peers.rank();
  const size_t width = SizeOf(chunk.dtype);
  const size_t begin = SliceBegin(peers, chunk.count, self);
  const size_t end = SliceBegin(peers, chunk.count, self + 1);
  std::byte* published = peers.next_slab();
  Reduce(pool, ParamsOf(peers, chunk, published),
         {static_cast<int64_t>(begin), static_cast<int64_t>(end)});
  MUSTER_RETURN_IF_ERROR(peers.Exchange(stamp));
  for (int rank = 0; rank < peers.size(); ++rank) {
    const size_t from = SliceBegin(peers, chunk.count, rank) * width;
    const size_t to = SliceBegin(peers, chunk.count, rank + 1) * width;
    ParallelCopy(pool, chunk.receive + from, peers.slab(rank) + from, to - from);
  }
  return absl::OkStatus();
}

absl::Status ReduceChunk(ShmPeers& peers, ThreadPool& pool, const Chunk& chunk,
                         const CollectiveStamp& stamp) {
  const size_t bytes = chunk.count * SizeOf(chunk.dtype);
  ParallelCopy(pool, peers.next_slab(), chunk.send, bytes);
  MUSTER_RETURN_IF_ERROR(peers.Exchange(stamp));
  if (peers.InTwoShots(bytes)) return FinishInTwoShots(peers, pool, chunk, stamp);
  Reduce(pool, ParamsOf(peers, chunk, chunk.receive), {0, static_cast<int64_t>(chunk.count)});
  return absl::OkStatus();
}

}  // namespace

void ParallelCopy(ThreadPool& pool, void* to, const void* from, size_t bytes) {
  if (to == from) return;
  pool.ForRanges(static_cast<int64_t>(bytes), kShmParallelBytes, [&](int64_t begin, int64_t end) {
    std::memcpy(static_cast<std::byte*>(to) + begin, static_cast<const std::byte*>(from) + begin,
                static_cast<size_t>(end - begin));
  });
}

absl::Status ShmAllReduce(ShmPeers& peers, ThreadPool& pool, const void* send, void* receive,
                          size_t count, DType dtype) {
  if (peers.size() == 1) {
    ParallelCopy(pool, receive, send, count * SizeOf(dtype));
    return absl::OkStatus();
  }
  const CollectiveStamp stamp{.op = CollectiveOp::kAllReduce,
                              .dtype = dtype,
                              .rows = static_cast<uint32_t>(count),
                              .row_bytes = SizeOf(dtype)};
  const size_t most = peers.slab_bytes() / SizeOf(dtype);
  size_t done = 0;
  do {
    const size_t at = done * SizeOf(dtype);
    const Chunk chunk{static_cast<const std::byte*>(send) + at,
                      static_cast<std::byte*>(receive) + at, std::min(most, count - done), dtype};
    MUSTER_RETURN_IF_ERROR(ReduceChunk(peers, pool, chunk, stamp));
    done += chunk.count;
  } while (done < count);
  return absl::OkStatus();
}

}  // namespace muster
