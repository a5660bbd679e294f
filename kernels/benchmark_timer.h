#ifndef MUSTER_KERNELS_BENCHMARK_TIMER_H_
#define MUSTER_KERNELS_BENCHMARK_TIMER_H_

#include <algorithm>
#include <chrono>
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

}  // namespace muster

#endif  // MUSTER_KERNELS_BENCHMARK_TIMER_H_
