#include "worker/model/weight_stream.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/status_macros.h"
#include "worker/model/convert.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace muster {
namespace {

constexpr uint64_t kAlignment = 64;  // of every chunk
constexpr uint64_t kProgressBytes = uint64_t{8} << 20;
// One is filled while the other is copied.
constexpr int kChunksPerThread = 2;

// How weights are brought to a device.
struct Plan {
  int threads = 1;
  uint64_t chunk_bytes = 0;
};

Plan PlanFor(Device& device) {
  // What computes on the host's processors needs them, and copies out of a processor's cache.
  const int of_host = device.Report().threads;
  if (of_host > 0) return {.threads = std::min(of_host, 2), .chunk_bytes = 256 << 10};
  // As many as gather what a link to a device takes, in chunks that it takes at its full speed.
  const int processors = static_cast<int>(std::thread::hardware_concurrency());
  return {.threads = std::clamp(processors / 2, 1, 8), .chunk_bytes = 2 << 20};
}

// A part of a transfer that fits a chunk.
struct Piece {
  const WeightTransfer* transfer;
  ShardRange rows;
  ShardRange columns;

  // Of the tensor.
  int64_t first() const { return int64_t{rows.begin} * transfer->tensor_columns + columns.begin; }
  int64_t end() const { return int64_t{rows.end - 1} * transfer->tensor_columns + columns.end; }
  const std::byte* source() const {
    const std::byte* const data = transfer->view.data;
    return data == nullptr ? nullptr : data + first() * SizeOf(stored());
  }
  int64_t elements() const { return int64_t{rows.size()} * columns.size(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * SizeOf(transfer->dtype); }
  DType stored() const { return transfer->view.dtype; }
  std::byte* to() const {
    const int64_t row = rows.begin - transfer->rows.begin;
    const int64_t column = columns.begin - transfer->columns.begin;
    return transfer->to + (row * transfer->columns.size() + column) * SizeOf(transfer->dtype);
  }
};

// Runs of at most `most` indices.
std::vector<ShardRange> Runs(ShardRange range, int most) {
  std::vector<ShardRange> runs;
  for (int begin = range.begin; begin < range.end; begin = runs.back().end) {
    runs.push_back({begin, begin + std::min(range.end - begin, most)});
  }
  return runs;
}

// Whole rows, or parts of one.
void Cut(const WeightTransfer& transfer, uint64_t most_bytes, std::vector<Piece>& pieces) {
  const int most = static_cast<int>(most_bytes / SizeOf(transfer.dtype));
  const int height = std::max(most / std::max(transfer.columns.size(), 1), 1);
  for (const ShardRange rows : Runs(transfer.rows, height)) {
    for (const ShardRange columns : Runs(transfer.columns, most)) {
      pieces.push_back({&transfer, rows, columns});
    }
  }
}

// In the order in which they lie in the files.
std::vector<Piece> CutAll(const std::vector<WeightTransfer>& transfers, uint64_t most_bytes) {
  std::vector<Piece> pieces;
  for (const WeightTransfer& transfer : transfers) Cut(transfer, most_bytes, pieces);
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return std::less<>()(a.source(), b.source());
  });
  return pieces;
}

// Has the kernel fetch and map, at once instead of by one fault per few pages, what a piece reads
// of a file. What fails costs time, and nothing else; so would pages that are passed over.
void Prefetch(const Piece& piece) {
  const int64_t span = piece.end() - piece.first();
  if (piece.source() == nullptr || span > 2 * piece.elements()) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(piece.source()) & -page;
  const auto end = reinterpret_cast<uintptr_t>(piece.source()) + span * SizeOf(piece.stored());
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ);
}

void Make(const Piece& piece, std::byte* out) {
  DummyWeightsCpu({.tensor = piece.transfer->view.dummy,
                   .first = piece.first(),
                   .row_stride = piece.transfer->tensor_columns,
                   .columns = piece.columns.size(),
                   .dtype = piece.transfer->dtype,
                   .out = out},
                  {0, piece.rows.size()});
}

void Gather(const Piece& piece, std::byte* out) {
  const WeightTransfer& transfer = *piece.transfer;
  const std::byte* from = piece.source();
  if (from == nullptr) return Make(piece, out);
  Prefetch(piece);
  const bool whole_rows = piece.columns.size() == transfer.tensor_columns;
  const int64_t runs = whole_rows ? 1 : piece.rows.size();
  const int64_t run = piece.elements() / runs;
  for (int64_t i = 0; i < runs; ++i) {
    ConvertElements(from, piece.stored(), out, transfer.dtype, run);
    from += transfer.tensor_columns * SizeOf(piece.stored());
    out += run * SizeOf(transfer.dtype);
  }
}

// Staging memory, and the stream that copies from it.
struct Chunk {
  std::byte* data = nullptr;
  std::unique_ptr<Stream> stream;
};
// Those of one thread.
using Chunks = std::array<Chunk, kChunksPerThread>;

class WeightStream {
 public:
  WeightStream(std::vector<Piece> pieces, Device& device)
      : pieces_(std::move(pieces)), device_(device) {}

  absl::Status Prepare(int most_threads) {
    chunks_.resize(std::min<size_t>(most_threads, pieces_.size()));
    uint64_t largest = 0;
    for (const Piece& piece : pieces_) largest = std::max<uint64_t>(largest, piece.bytes());
    largest += -largest % kAlignment;
    MUSTER_ASSIGN_OR_RETURN(staging_,
                            device_.AllocateHost(largest * kChunksPerThread * chunks_.size(),
                                                 "staging of weights", ledger_));
    auto* data = staging_.as<std::byte>();
    for (Chunks& chunks : chunks_) {
      for (Chunk& chunk : chunks) {
        MUSTER_ASSIGN_OR_RETURN(chunk.stream, device_.CreateStream());
        chunk.data = std::exchange(data, data + largest);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Run(absl::FunctionRef<absl::Status(uint64_t)> progress) {
    {
      absl::MutexLock lock(&mu_);
      working_ = chunks_.size();
    }
    std::vector<std::thread> threads;
    for (Chunks& chunks : chunks_) threads.emplace_back([&] { Work(chunks); });
    while (const std::optional<uint64_t> bytes = AwaitProgress()) {
      absl::Status status = progress(*bytes);
      absl::MutexLock lock(&mu_);
      status_.Update(status);
    }
    for (std::thread& thread : threads) thread.join();
    absl::MutexLock lock(&mu_);
    return status_;
  }

 private:
  // The rest is those of the threads.
  void Work(Chunks& chunks) {
    absl::Status status;
    for (size_t turn = 0; status.ok(); ++turn) {
      const Piece* const piece = Take();
      if (piece == nullptr) break;
      status = Move(*piece, chunks[turn % chunks.size()]);
    }
    for (Chunk& chunk : chunks) status.Update(chunk.stream->Synchronize());
    absl::MutexLock lock(&mu_);
    status_.Update(status);
    --working_;
  }

  // Null when there is nothing left to do.
  const Piece* Take() {
    absl::MutexLock lock(&mu_);
    if (!status_.ok() || next_ == pieces_.size()) return nullptr;
    return &pieces_[next_++];
  }

  absl::Status Move(const Piece& piece, Chunk& chunk) {
    MUSTER_RETURN_IF_ERROR(chunk.stream->Synchronize());
    Gather(piece, chunk.data);
    MUSTER_RETURN_IF_ERROR(device_.Copy(*chunk.stream, piece.to(), chunk.data, piece.bytes()));
    absl::MutexLock lock(&mu_);
    moved_ += piece.bytes();
    return absl::OkStatus();
  }

  // The bytes on their way each time that they are a step more than before; none once all threads
  // have ended.
  std::optional<uint64_t> AwaitProgress() {
    const auto step = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return status_.ok() && moved_ - reported_ >= kProgressBytes;
    };
    const auto news = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return step() || working_ == 0; };
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&news));
    if (!step()) return std::nullopt;
    return reported_ = moved_;
  }

  const std::vector<Piece> pieces_;
  Device& device_;
  Ledger ledger_;  // of what lives no longer than this
  Buffer staging_;
  std::vector<Chunks> chunks_;  // by thread; each uses its own

  absl::Mutex mu_;
  size_t next_ ABSL_GUARDED_BY(mu_) = 0;
  size_t working_ ABSL_GUARDED_BY(mu_) = 0;  // threads that have not ended
  uint64_t moved_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t reported_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mu_);  // the first that is not OK
};

}  // namespace

absl::Status StreamWeights(const std::vector<WeightTransfer>& transfers, Device& device,
                           absl::FunctionRef<absl::Status(uint64_t bytes)> progress) {
  const Plan plan = PlanFor(device);
  std::vector<Piece> pieces = CutAll(transfers, plan.chunk_bytes);
  if (pieces.empty()) return absl::OkStatus();
  WeightStream stream(std::move(pieces), device);
  MUSTER_RETURN_IF_ERROR(stream.Prepare(plan.threads));
  return stream.Run(progress);
}

}  // namespace muster
