#include "worker/device/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace muster {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryPartOnceInManyRuns) {
  ThreadPool pool(GetParam());
  for (int parts : {0, 1, 2, 3, 7, 64}) {
    for (int run = 0; run < 200; ++run) {
      std::vector<std::atomic<int>> calls(parts);
      pool.Run(parts, [&](int part) { calls[part].fetch_add(1); });
      for (int i = 0; i < parts; ++i) ASSERT_EQ(calls[i].load(), 1) << "part " << i;
    }
  }
}

TEST_P(ThreadPoolTest, ShowsTheCallerWhatThePartsWrote) {
  ThreadPool pool(GetParam());
  std::vector<int> values(16);
  for (int run = 1; run <= 500; ++run) {
    pool.Run(16, [&](int part) { values[part] = run * part; });
    for (int i = 0; i < 16; ++i) ASSERT_EQ(values[i], run * i);
  }
}

TEST_P(ThreadPoolTest, RunsPartsOfARunWithinAPart) {
  ThreadPool pool(GetParam());
  std::atomic<int> calls{0};
  pool.Run(4, [&](int) { pool.Run(3, [&](int) { calls.fetch_add(1); }); });
  EXPECT_EQ(calls.load(), 12);
}

TEST_P(ThreadPoolTest, ServesTwoCallersAtOnce) {
  ThreadPool pool(GetParam());
  std::atomic<int> calls{0};
  const auto call = [&] {
    for (int run = 0; run < 200; ++run) pool.Run(5, [&](int) { calls.fetch_add(1); });
  };
  std::thread other(call);
  call();
  other.join();
  EXPECT_EQ(calls.load(), 2 * 200 * 5);
}

TEST_P(ThreadPoolTest, CutsRangesThatCoverAllAndRespectTheGrain) {
  ThreadPool pool(GetParam());
  for (int64_t count : {0, 1, 9, 10, 31, 100}) {
    std::mutex mu;
    std::set<std::pair<int64_t, int64_t>> ranges;
    pool.ForRanges(count, 10, [&](int64_t begin, int64_t end) {
      std::lock_guard<std::mutex> lock(mu);
      EXPECT_TRUE(ranges.emplace(begin, end).second);
    });
    int64_t at = 0;
    for (const auto& [begin, end] : ranges) {
      EXPECT_EQ(begin, at);
      EXPECT_TRUE(ranges.size() == 1 || end - begin >= 10);
      at = end;
    }
    EXPECT_EQ(at, count);
    EXPECT_LE(ranges.size(), static_cast<size_t>(GetParam()));
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 5));

}  // namespace
}  // namespace muster
