// What a worker did when, kept for a moment so that somebody can collect it.
#ifndef MUSTER_WORKER_ENGINE_SPAN_RING_H_
#define MUSTER_WORKER_ENGINE_SPAN_RING_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/trace_context.h"

namespace muster {

enum class SpanKind : uint8_t {
  kRequest,   // from its arrival to its answer, on the leader
  kQueue,     // of it, until the engine began with it
  kStep,      // from its stamp, or on a follower from when it was read, to its end
  kRelay,     // of it, until the followers could read it, on the leader
  kDevice,    // of it, from the first enqueue to completion
  kSampling,  // of that, what finds and gathers candidates
  kPause,     // of a resize, while nothing ran
};
inline constexpr int kSpanKinds = 7;

struct Span {
  SpanKind kind = SpanKind::kStep;
  ReplicaIndex replica;
  Epoch epoch;
  GlobalRank rank;
  StepNumber step;  // of a request the last that ran for it; 0: none
  absl::Time begin;
  absl::Duration duration;
  // Of kDevice.
  uint32_t rows = 0;
  uint32_t rows_run = 0;                                         // with padding
  uint32_t collectives = 0;                                      // that the step ran
  uint64_t collective_bytes = 0;                                 // that this rank brought to them
  std::optional<absl::Duration> collective_wait = std::nullopt;  // for peers, where that is known
  // Of kRequest and kQueue.
  absl::string_view request_id = {};  // at most kMaxIdBytes, what is longer is cut; may be empty
  TraceContext trace = {};
};

// The last spans of one worker, of all its epochs. Written by the threads that run steps, which
// neither lock nor allocate: a span that cannot be written at once is lost. Where nobody reads,
// on() is false, and nothing is to be written. Thread-safe.
class SpanRing {
 public:
  static constexpr size_t kMaxIdBytes = 128;
  static constexpr size_t kSize = 16384;  // 4 MiB

  // `size` is a power of two.
  explicit SpanRing(size_t size = kSize);

  bool on() const { return readers_.load(std::memory_order_relaxed) > 0; }
  void Write(const Span& span);

 private:
  friend class SpanReader;

  // What travels of a span, in words that are copied one by one: the reader may look at a slot that
  // is just written, finds out from its version, and drops what it saw.
  struct Packed;
  static constexpr size_t kPackedWords = 12;
  static constexpr size_t kWords = kPackedWords + kMaxIdBytes / sizeof(uint64_t);

  // The span numbered `n`, from 0, lies in slot n % size: `version` is 2n + 1 while it is written,
  // then 2n + 2.
  struct Slot {
    std::atomic<uint64_t> version{0};
    std::atomic<uint64_t> words[kWords];
  };

  const size_t size_;
  const std::unique_ptr<Slot[]> slots_;
  std::atomic<uint64_t> next_{0};
  std::atomic<int> readers_{0};
};

// Reads what is written while it lives. One thread at a time.
class SpanReader {
 public:
  explicit SpanReader(std::shared_ptr<SpanRing> ring);
  ~SpanReader();
  SpanReader(const SpanReader&) = delete;
  SpanReader& operator=(const SpanReader&) = delete;

  // Hands on what was written since the call before, in the order in which writing began; texts
  // live until `use` returns.
  void Read(absl::FunctionRef<void(const Span&)> use);
  // Spans so far that were overwritten before they were read.
  uint64_t lost() const { return lost_; }

 private:
  enum class Found { kSpan, kUnfinished, kOverwritten };
  Found ReadSlot(uint64_t number, absl::FunctionRef<void(const Span&)> use) const;

  const std::shared_ptr<SpanRing> ring_;
  uint64_t next_ = 0;
  bool waits_ = false;  // for `next_`, since the Read before
  uint64_t lost_ = 0;
};

// Writes the spans of one rank of one epoch.
class RankSpans {
 public:
  RankSpans(std::shared_ptr<SpanRing> ring, ReplicaIndex replica, Epoch epoch, GlobalRank rank)
      : ring_(std::move(ring)), replica_(replica), epoch_(epoch), rank_(rank) {}

  bool on() const { return ring_->on(); }
  // `span` names no rank.
  void Write(Span span) const {
    span.replica = replica_;
    span.epoch = epoch_;
    span.rank = rank_;
    ring_->Write(span);
  }
  // That began then, and ends now.
  void WritePause(absl::Time begun) const {
    if (!on()) return;
    Write({.kind = SpanKind::kPause, .begin = begun, .duration = Clock::Real().Now() - begun});
  }

 private:
  const std::shared_ptr<SpanRing> ring_;
  const ReplicaIndex replica_;
  const Epoch epoch_;
  const GlobalRank rank_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_SPAN_RING_H_
