#include "tests/support/allocation_count.h"

#include <link.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

namespace muster::testing {
namespace {

thread_local uint64_t of_this_thread = 0;
std::atomic<uint64_t> of_this_process{0};

// Where oneDNN's code lies; empty where this program does not load it.
struct CodeRange {
  uintptr_t begin = 0;
  uintptr_t end = 0;
};

int FindOneDnn(dl_phdr_info* object, size_t /*size*/, void* found) {
  if (std::strstr(object->dlpi_name, "libdnnl.so") == nullptr) return 0;
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const auto& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    const uintptr_t begin = object->dlpi_addr + segment.p_vaddr;
    *static_cast<CodeRange*>(found) = {begin, begin + segment.p_memsz};
  }
  return 1;
}

bool IsOneDnn(const void* caller) {
  static const CodeRange range = [] {
    CodeRange found;
    dl_iterate_phdr(FindOneDnn, &found);
    return found;
  }();
  const auto address = reinterpret_cast<uintptr_t>(caller);
  return range.begin <= address && address < range.end;
}

void* CountedAllocation(size_t bytes, size_t alignment, const void* caller) {
  if (!IsOneDnn(caller)) {
    ++of_this_thread;
    of_this_process.fetch_add(1, std::memory_order_relaxed);
  }
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) std::abort();
  return memory;
}

}  // namespace

uint64_t AllocationsOfThisThread() { return of_this_thread; }
uint64_t AllocationsOfThisProcess() { return of_this_process.load(); }

}  // namespace muster::testing

void* operator new(size_t bytes) {
  return muster::testing::CountedAllocation(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__,
                                            __builtin_return_address(0));
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  return muster::testing::CountedAllocation(bytes, static_cast<size_t>(alignment),
                                            __builtin_return_address(0));
}
// Under sanitizers the standard library's does not come to the one above.
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return muster::testing::CountedAllocation(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__,
                                            __builtin_return_address(0));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
