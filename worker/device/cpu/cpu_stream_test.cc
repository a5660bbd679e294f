#include "worker/device/cpu/cpu_stream.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <new>

#include "base/status_macros.h"
#include "tests/support/status_matchers.h"
#include "worker/device/cpu/cpu_device.h"

namespace {
std::atomic<int> allocations{0};
}  // namespace

// Counts every allocation of this program.
void* operator new(size_t bytes) {
  allocations.fetch_add(1);
  if (void* memory = std::malloc(bytes)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace muster {
namespace {

class CpuStreamTest : public ::testing::Test {
 protected:
  CpuStreamTest() : device_({.threads = 2}), stream_(*device_.CreateStream()) {}

  CpuStream& cpu() { return CpuStream::From(*stream_); }

  CpuDevice device_;
  std::unique_ptr<Stream> stream_;
};

TEST_F(CpuStreamTest, RunsWorkWhereItIsEnqueued) {
  int runs = 0;
  EXPECT_OK(cpu().Run([&] {
    ++runs;
    return absl::OkStatus();
  }));
  EXPECT_EQ(runs, 1);
}

TEST_F(CpuStreamTest, TellsTheFirstErrorOnceMoreWhenItIsSynchronized) {
  EXPECT_STATUS(cpu().Run([] { return absl::DataLossError("first"); }), absl::StatusCode::kDataLoss,
                "first");
  EXPECT_STATUS(cpu().Run([] { return absl::InternalError("second"); }),
                absl::StatusCode::kInternal, "second");
  EXPECT_STATUS(stream_->Synchronize(), absl::StatusCode::kDataLoss, "first");
  EXPECT_OK(stream_->Synchronize());
}

TEST_F(CpuStreamTest, RunsNothingWhileACaptureRecords) {
  int runs = 0;
  ASSERT_OK_AND_ASSIGN(auto graph, device_.Capture(*stream_, [&] {
    return cpu().Run([&] {
      ++runs;
      return absl::OkStatus();
    });
  }));
  EXPECT_EQ(runs, 0);
  EXPECT_OK(graph->Launch(*stream_));
  EXPECT_OK(graph->Launch(*stream_));
  EXPECT_EQ(runs, 2);
  EXPECT_GT(graph->bytes(), 0u);
}

TEST_F(CpuStreamTest, KeepsNothingOfACaptureThatFails) {
  int runs = 0;
  EXPECT_STATUS(device_.Capture(*stream_,
                                [&]() -> absl::Status {
                                  MUSTER_RETURN_IF_ERROR(cpu().Run([&] {
                                    ++runs;
                                    return absl::OkStatus();
                                  }));
                                  return absl::InternalError("no");
                                }),
                absl::StatusCode::kInternal, "no");
  EXPECT_EQ(runs, 0);
  EXPECT_FALSE(cpu().recording());
}

TEST_F(CpuStreamTest, EndsAReplayAtTheFirstError) {
  int runs = 0;
  ASSERT_OK_AND_ASSIGN(auto graph, device_.Capture(*stream_, [&]() -> absl::Status {
    for (int i = 0; i < 3; ++i) {
      MUSTER_RETURN_IF_ERROR(cpu().Run([&runs, i] {
        ++runs;
        return i == 1 ? absl::DataLossError("the second") : absl::OkStatus();
      }));
    }
    return absl::OkStatus();
  }));
  EXPECT_STATUS(graph->Launch(*stream_), absl::StatusCode::kDataLoss, "the second");
  EXPECT_EQ(runs, 2);
  EXPECT_STATUS(stream_->Synchronize(), absl::StatusCode::kDataLoss, "the second");
}

TEST_F(CpuStreamTest, ReplaysAndForksWithoutAllocating) {
  std::array<int, 64> data{};
  ASSERT_OK_AND_ASSIGN(auto graph, device_.Capture(*stream_, [&]() -> absl::Status {
    for (int i = 0; i < 10; ++i) {
      MUSTER_RETURN_IF_ERROR(cpu().Run([&data, &pool = cpu().pool(), i] {
        pool.ForRanges(64, 1, [&](int64_t begin, int64_t end) {
          for (int64_t at = begin; at < end; ++at) data[at] += i;
        });
        return absl::OkStatus();
      }));
    }
    return device_.Copy(*stream_, &data[0], &data[1], sizeof(int));
  }));
  const int before = allocations.load();
  for (int i = 0; i < 100; ++i) ASSERT_OK(graph->Launch(*stream_));
  EXPECT_EQ(allocations.load(), before);
  EXPECT_EQ(data[5], 45 * 100);
}

}  // namespace
}  // namespace muster
