// Counts what code asks of the heap. Linking it replaces operator new in the whole program.
#ifndef MUSTER_TESTS_SUPPORT_ALLOCATION_COUNT_H_
#define MUSTER_TESTS_SUPPORT_ALLOCATION_COUNT_H_

#include <cstdint>

namespace muster::testing {

// Calls of operator new on this thread so far, without those of oneDNN's own code.
uint64_t AllocationsOfThisThread();
// On all threads.
uint64_t AllocationsOfThisProcess();

}  // namespace muster::testing

#endif  // MUSTER_TESTS_SUPPORT_ALLOCATION_COUNT_H_
