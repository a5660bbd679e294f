#include "worker/device/cpu/thread_pool.h"

#include <algorithm>

#include "base/spin_wait.h"
#include "worker/device/cpu/futex.h"

namespace muster {
namespace {

// Longer than the serial stretches between the parallel parts of a step, shorter than the pause
// between steps of an idle server.
constexpr int64_t kSpinNs = 50'000;

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { WorkerLoop(); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  generation_.fetch_add(1);
  FutexWakeAll(generation_, FutexScope::kProcess);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int parts, absl::FunctionRef<void(int)> part) {
  if (parts <= 1 || workers_.empty() || busy_.test_and_set(std::memory_order_acquire)) {
    for (int i = 0; i < parts; ++i) part(i);
    return;
  }
  const uint32_t count = static_cast<uint32_t>(parts);
  const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  job_ = &part;
  done_.store(0, std::memory_order_relaxed);
  claim_.store(uint64_t{generation} << 32 | count << 16, std::memory_order_release);
  // Sequentially consistent, as is a sleeper's count: either it sees the generation or we see it.
  generation_.store(generation);
  if (sleepers_.load() != 0) FutexWakeAll(generation_, FutexScope::kProcess);
  TakeParts(generation);
  AwaitDone(count);
  busy_.clear(std::memory_order_release);
}

void ThreadPool::ForRanges(int64_t count, int64_t grain,
                           absl::FunctionRef<void(int64_t, int64_t)> body) {
  const int64_t parts = std::min<int64_t>(threads(), count / std::max<int64_t>(grain, 1));
  if (parts <= 1) {
    if (count > 0) body(0, count);
    return;
  }
  Run(static_cast<int>(parts),
      [&](int part) { body(count * part / parts, count * (part + 1) / parts); });
}

void ThreadPool::WorkerLoop() {
  uint32_t seen = 0;
  while (true) {
    seen = AwaitGeneration(seen);
    if (stop_.load()) return;
    TakeParts(seen);
  }
}

void ThreadPool::TakeParts(uint32_t generation) {
  uint64_t claim = claim_.load(std::memory_order_acquire);
  while (true) {
    const uint32_t next = claim & 0xFFFF;
    const uint32_t parts = (claim >> 16) & 0xFFFF;
    if (static_cast<uint32_t>(claim >> 32) != generation || next >= parts) return;
    if (!claim_.compare_exchange_weak(claim, claim + 1, std::memory_order_acq_rel)) continue;
    (*job_)(static_cast<int>(next));
    if (done_.fetch_add(1) + 1 == parts && caller_sleeps_.load() != 0) {
      FutexWakeAll(done_, FutexScope::kProcess);
    }
    claim = claim_.load(std::memory_order_acquire);
  }
}

uint32_t ThreadPool::AwaitGeneration(uint32_t seen) {
  uint32_t now = seen;
  const auto changed = [&] {
    now = generation_.load(std::memory_order_acquire);
    return now != seen;
  };
  if (SpinUntil(kSpinNs, changed)) return now;
  sleepers_.fetch_add(1);
  while (generation_.load() == seen) FutexWait(generation_, seen, FutexScope::kProcess);
  sleepers_.fetch_sub(1);
  return generation_.load();
}

void ThreadPool::AwaitDone(uint32_t parts) {
  const auto all_done = [&] { return done_.load(std::memory_order_acquire) == parts; };
  if (SpinUntil(kSpinNs, all_done)) return;
  caller_sleeps_.store(1);
  for (uint32_t done = done_.load(); done != parts; done = done_.load()) {
    FutexWait(done_, done, FutexScope::kProcess);
  }
  caller_sleeps_.store(0);
}

}  // namespace muster
