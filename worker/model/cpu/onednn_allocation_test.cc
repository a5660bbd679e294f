// What a replay asks of the heap when oneDNN multiplies: nothing of ours, and always the same of
// oneDNN's own.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/support/allocation_count.h"
#include "tests/support/status_matchers.h"
#include "worker/model/cpu/cpu_ops.h"

// glibc's own, beneath the names that this program replaces for oneDNN as well.
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
}

namespace {
std::atomic<uint64_t> heap_calls{0};
}  // namespace

extern "C" void* malloc(size_t bytes) {
  heap_calls.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(bytes);
}
extern "C" int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  heap_calls.fetch_add(1, std::memory_order_relaxed);
  *memory = __libc_memalign(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}
extern "C" void* aligned_alloc(size_t alignment, size_t bytes) {
  heap_calls.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, bytes);
}

namespace muster {
namespace {

class OneDnnAllocationTest : public ::testing::TestWithParam<DType> {};

TEST_P(OneDnnAllocationTest, AReplayTakesNothingOfOursAndAlwaysTheSameOfOneDnn) {
  constexpr int kRows = 64;
  constexpr int kReplays = 20;
  constexpr int64_t kN = 160, kK = 96;
  Ledger ledger;
  // Alone: which of several threads takes part in a replay, and asks for its scratch the first time
  // it does, is up to the scheduler.
  CpuDevice device({.threads = 1});
  CpuOps ops(device, ledger);
  ASSERT_OK_AND_ASSIGN(const auto stream, device.CreateStream());
  ASSERT_OK_AND_ASSIGN(const Buffer weights, device.Allocate(kN * kK * 4, "weights", ledger));
  const std::vector<float> x(kRows * kK, 0.5f);
  std::vector<float> y(kRows * kN);
  const LinearParams params{
      .x = x.data(), .weights = {weights.data(), kN, kK, GetParam()}, .y = y.data()};
  ASSERT_OK(ops.Prepare(params.weights, kRows));
  ASSERT_OK_AND_ASSIGN(const auto graph,
                       device.Capture(*stream, [&] { return ops.Linear(*stream, params, kRows); }));
  ASSERT_OK(graph->Launch(*stream));
  ASSERT_OK(graph->Launch(*stream));

  std::vector<uint64_t> ours(kReplays), heap(kReplays);
  for (int i = 0; i < kReplays; ++i) {
    const uint64_t ours_before = testing::AllocationsOfThisProcess();
    const uint64_t heap_before = heap_calls;
    ASSERT_OK(graph->Launch(*stream));
    heap[i] = heap_calls - heap_before;
    ours[i] = testing::AllocationsOfThisProcess() - ours_before;
  }
  EXPECT_EQ(ours, std::vector<uint64_t>(kReplays, 0));
  EXPECT_EQ(heap, std::vector<uint64_t>(kReplays, heap[0]));
  RecordProperty("heap_calls_of_onednn_per_replay", static_cast<int>(heap[0]));
}

TEST(HeapCountTest, SeesWhatIsAllocated) {
  const uint64_t before = heap_calls;
  const std::vector<int> something(100);
  EXPECT_EQ(something.back(), 0);
  EXPECT_GT(heap_calls, before);
}

INSTANTIATE_TEST_SUITE_P(Types, OneDnnAllocationTest,
                         ::testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) {
                           return info.param == DType::kFloat32 ? "Float32" : "BFloat16";
                         });

}  // namespace
}  // namespace muster
