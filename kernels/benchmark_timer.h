#ifndef MUSTER_KERNELS_BENCHMARK_TIMER_H_
#define MUSTER_KERNELS_BENCHMARK_TIMER_H_

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace muster {

// The median duration of `passes` calls of fn, after one that warms up.
template <typename F>
double MedianSeconds(int passes, const F& fn) {
  fn();
  std::vector<double> seconds;
  for (int i = 0; i < passes; ++i) {
    const auto start = std::chrono::steady_clock::now();
    fn();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    seconds.push_back(elapsed.count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + passes / 2, seconds.end());
  return seconds[passes / 2];
}

// Reads `bytes` of memory as fast as one thread can: the limit that kernels bound by memory are
// held against. Four streams with prefetching, which is what reaches most; `bytes` is a multiple
// of 256.
__attribute__((target_clones("avx512f", "avx2", "default"))) inline void StreamingRead(
    const std::byte* data, size_t bytes) {
  constexpr size_t kStreams = 4;
  constexpr size_t kLine = 64;
  constexpr size_t kWords = kLine / sizeof(uint64_t);
  constexpr size_t kAhead = 512;
  const size_t stream_bytes = bytes / kStreams;
  uint64_t sums[kStreams][kWords] = {};
  for (size_t i = 0; i < stream_bytes; i += kLine) {
    for (size_t stream = 0; stream < kStreams; ++stream) {
      const std::byte* line = data + stream * stream_bytes + i;
      __builtin_prefetch(line + kAhead);
      uint64_t words[kWords];
      std::memcpy(words, line, kLine);
      for (size_t j = 0; j < kWords; ++j) sums[stream][j] += words[j];
    }
  }
  uint64_t total = 0;
  for (const auto& stream : sums) {
    for (const uint64_t sum : stream) total += sum;
  }
  asm volatile("" : : "r"(total));  // the sum counts as used
}

}  // namespace muster

#endif  // MUSTER_KERNELS_BENCHMARK_TIMER_H_
