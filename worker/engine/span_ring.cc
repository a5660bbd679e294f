#include "worker/engine/span_ring.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace muster {

struct SpanRing::Packed {
  static constexpr int64_t kNoWait = -1;

  int64_t begin_ns = 0;  // since 1970
  int64_t duration_ns = 0;
  uint64_t epoch = 0;
  uint64_t step = 0;
  int32_t replica = 0;
  int32_t rank = 0;
  uint32_t rows = 0;
  uint32_t rows_run = 0;
  uint32_t collectives = 0;
  SpanKind kind = SpanKind::kStep;
  bool sampled = false;
  uint16_t id_size = 0;
  uint64_t collective_bytes = 0;
  int64_t collective_wait_ns = kNoWait;
  uint64_t trace_high = 0;
  uint64_t trace_low = 0;
  uint64_t parent_span = 0;

  static Packed Of(const Span& span) {
    return {.begin_ns = absl::ToUnixNanos(span.begin),
            .duration_ns = absl::ToInt64Nanoseconds(span.duration),
            .epoch = span.epoch.value(),
            .step = span.step.value(),
            .replica = span.replica.value(),
            .rank = span.rank.value(),
            .rows = span.rows,
            .rows_run = span.rows_run,
            .collectives = span.collectives,
            .kind = span.kind,
            .sampled = span.trace.sampled,
            .id_size = static_cast<uint16_t>(std::min(span.request_id.size(), kMaxIdBytes)),
            .collective_bytes = span.collective_bytes,
            .collective_wait_ns = span.collective_wait.has_value()
                                      ? absl::ToInt64Nanoseconds(*span.collective_wait)
                                      : kNoWait,
            .trace_high = span.trace.trace_high,
            .trace_low = span.trace.trace_low,
            .parent_span = span.trace.parent_span};
  }

  // `id` has room for the whole of it.
  Span Unpack(const char* id) const {
    return {.kind = kind,
            .replica = ReplicaIndex(replica),
            .epoch = Epoch(epoch),
            .rank = GlobalRank(rank),
            .step = StepNumber(step),
            .begin = absl::FromUnixNanos(begin_ns),
            .duration = absl::Nanoseconds(duration_ns),
            .rows = rows,
            .rows_run = rows_run,
            .collectives = collectives,
            .collective_bytes = collective_bytes,
            .collective_wait = collective_wait_ns == kNoWait
                                   ? std::nullopt
                                   : std::optional(absl::Nanoseconds(collective_wait_ns)),
            .request_id = {id, id_size},
            .trace = {.trace_high = trace_high,
                      .trace_low = trace_low,
                      .parent_span = parent_span,
                      .sampled = sampled}};
  }

  // Words that a span with such an id takes.
  size_t words() const {
    return kPackedWords + (id_size + sizeof(uint64_t) - 1) / sizeof(uint64_t);
  }
};

SpanRing::SpanRing(size_t size) : size_(size), slots_(std::make_unique<Slot[]>(size)) {}

void SpanRing::Write(const Span& span) {
  static_assert(sizeof(Packed) == kPackedWords * sizeof(uint64_t));
  const Packed packed = Packed::Of(span);
  std::array<uint64_t, kWords> words{};
  std::memcpy(words.data(), &packed, sizeof(packed));
  std::copy_n(span.request_id.data(), packed.id_size,
              reinterpret_cast<char*>(words.data() + kPackedWords));

  const uint64_t number = next_.fetch_add(1, std::memory_order_relaxed);
  Slot& slot = slots_[number % size_];
  uint64_t version = slot.version.load(std::memory_order_relaxed);
  // Whoever is still writing there was overtaken by a whole round, or has overtaken this one.
  if (version % 2 == 1 || version > 2 * number) return;
  if (!slot.version.compare_exchange_strong(version, 2 * number + 1, std::memory_order_relaxed)) {
    return;
  }
  // Whoever reads one of these words also sees that the slot is being written.
  for (size_t i = 0; i < packed.words(); ++i) {
    slot.words[i].store(words[i], std::memory_order_release);
  }
  slot.version.store(2 * number + 2, std::memory_order_release);
}

SpanReader::SpanReader(std::shared_ptr<SpanRing> ring) : ring_(std::move(ring)) {
  next_ = ring_->next_.load(std::memory_order_relaxed);
  ring_->readers_.fetch_add(1, std::memory_order_relaxed);
}

SpanReader::~SpanReader() { ring_->readers_.fetch_sub(1, std::memory_order_relaxed); }

void SpanReader::Read(absl::FunctionRef<void(const Span&)> use) {
  const uint64_t end = ring_->next_.load(std::memory_order_acquire);
  if (end - next_ > ring_->size_) {
    lost_ += end - next_ - ring_->size_;
    next_ = end - ring_->size_;
  }
  for (; next_ < end; ++next_) {
    const Found found = ReadSlot(next_, use);
    // Its writer is at it, or has given it up: the next Read knows.
    if (found == Found::kUnfinished && !std::exchange(waits_, true)) return;
    waits_ = false;
    if (found != Found::kSpan) ++lost_;
  }
}

SpanReader::Found SpanReader::ReadSlot(uint64_t number,
                                       absl::FunctionRef<void(const Span&)> use) const {
  const SpanRing::Slot& slot = ring_->slots_[number % ring_->size_];
  const uint64_t complete = 2 * number + 2;
  const uint64_t version = slot.version.load(std::memory_order_acquire);
  if (version < complete) return Found::kUnfinished;
  std::array<uint64_t, SpanRing::kWords> words;
  SpanRing::Packed packed;
  for (size_t i = 0; i < SpanRing::kPackedWords; ++i) {
    words[i] = slot.words[i].load(std::memory_order_acquire);
  }
  std::memcpy(static_cast<void*>(&packed), words.data(), sizeof(packed));
  // What is torn may say anything.
  packed.id_size = std::min<uint16_t>(packed.id_size, SpanRing::kMaxIdBytes);
  for (size_t i = SpanRing::kPackedWords; i < packed.words(); ++i) {
    words[i] = slot.words[i].load(std::memory_order_acquire);
  }
  if (version != complete || slot.version.load(std::memory_order_relaxed) != complete) {
    return Found::kOverwritten;
  }
  use(packed.Unpack(reinterpret_cast<const char*>(words.data() + SpanRing::kPackedWords)));
  return Found::kSpan;
}

}  // namespace muster
