#include "tests/support/allocation_count.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace muster::testing {
namespace {

thread_local uint64_t of_this_thread = 0;
std::atomic<uint64_t> of_this_process{0};

void* CountedAllocation(size_t bytes, size_t alignment) {
  ++of_this_thread;
  of_this_process.fetch_add(1, std::memory_order_relaxed);
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

uint64_t AllocationsOfThisThread() { return of_this_thread; }
uint64_t AllocationsOfThisProcess() { return of_this_process.load(); }

}  // namespace muster::testing

void* operator new(size_t bytes) {
  return muster::testing::CountedAllocation(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  return muster::testing::CountedAllocation(bytes, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
