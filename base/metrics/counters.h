// What a hot path may count with: it adds to relaxed atomics, and somebody else reads now and then.
#ifndef MUSTER_BASE_METRICS_COUNTERS_H_
#define MUSTER_BASE_METRICS_COUNTERS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace muster {

// Only grows. Thread-safe.
class Counter {
 public:
  void Add(uint64_t by = 1) { value_.fetch_add(by, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Counts values by the first of `kBounds` (ascending) that is not below them, and behind the last
// of those that are above all. Thread-safe; allocates nothing.
template <const auto& kBounds>
class Histogram {
 public:
  static constexpr size_t kBuckets = kBounds.size() + 1;

  void Observe(int64_t value) {
    size_t bucket = 0;
    while (bucket < kBounds.size() && value > kBounds[bucket]) ++bucket;
    counts_[bucket].Add();
    sum_.Add(static_cast<uint64_t>(value));
  }
  // Of one bucket alone, not of those below it.
  uint64_t count(size_t bucket) const { return counts_[bucket].value(); }
  uint64_t sum() const { return sum_.value(); }

 private:
  std::array<Counter, kBuckets> counts_;
  Counter sum_;
};

// Nanoseconds, from 50 us to 30 s: three per decade and a little finer where steps are.
inline constexpr std::array<int64_t, 18> kDurationBounds = {
    50'000,      100'000,       250'000,       500'000,       1'000'000,      2'500'000,
    5'000'000,   10'000'000,    25'000'000,    50'000'000,    100'000'000,    250'000'000,
    500'000'000, 1'000'000'000, 2'500'000'000, 5'000'000'000, 10'000'000'000, 30'000'000'000};

class DurationHistogram : public Histogram<kDurationBounds> {
 public:
  using Histogram::Observe;
  void Observe(absl::Duration duration) { Observe(absl::ToInt64Nanoseconds(duration)); }
};

}  // namespace muster

#endif  // MUSTER_BASE_METRICS_COUNTERS_H_
