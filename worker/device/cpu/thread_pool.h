#ifndef MUSTER_WORKER_DEVICE_CPU_THREAD_POOL_H_
#define MUSTER_WORKER_DEVICE_CPU_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace muster {

// The compute threads of one rank: fork and join, with the caller taking part. Idle threads spin
// for a moment, then sleep. Run allocates nothing. A pool of one thread starts none.
class ThreadPool {
 public:
  static constexpr int kMaxParts = 65535;

  // `threads` counts the caller and is at least 1.
  explicit ThreadPool(int threads);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls part(i) once for every i in [0, parts), on any of the threads, and returns when all have
  // returned. parts <= kMaxParts. Any thread; while one caller has the pool, another's parts (and
  // those of a Run within a part) run on their own caller alone.
  void Run(int parts, absl::FunctionRef<void(int)> part);

  // Cuts [0, count) into ranges of at least `grain` (the last may be shorter), at most one per
  // thread, and calls body(begin, end) for each as Run does.
  void ForRanges(int64_t count, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body);

 private:
  void WorkerLoop();
  // Takes and runs parts of the job `generation` until none is left to take.
  void TakeParts(uint32_t generation);
  // Waits until the published generation is not `seen`, and returns it.
  uint32_t AwaitGeneration(uint32_t seen);
  void AwaitDone(uint32_t parts);

  std::vector<std::thread> workers_;  // constant after construction

  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;  // a caller has the pool

  // The job. `claim_` is generation << 32 | parts << 16 | next part: a part is taken by adding one,
  // so a thread that is late for a generation can take nothing of the next by mistake.
  std::atomic<uint64_t> claim_{0};
  const absl::FunctionRef<void(int)>* job_ = nullptr;  // written before claim_, read after a claim
  char apart_from_generation_[64];       // what is written apart lies on cache lines apart
  std::atomic<uint32_t> generation_{0};  // sleeping threads wait on it
  std::atomic<uint32_t> sleepers_{0};
  std::atomic<bool> stop_{false};
  char apart_from_done_[64];
  std::atomic<uint32_t> done_{0};  // parts that have returned; the caller waits on it
  std::atomic<uint32_t> caller_sleeps_{0};
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CPU_THREAD_POOL_H_
