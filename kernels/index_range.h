#ifndef MUSTER_KERNELS_INDEX_RANGE_H_
#define MUSTER_KERNELS_INDEX_RANGE_H_

#include <cstdint>

namespace muster {

// The half-open range [begin, end) of rows, heads or columns that one call of a kernel works on.
// Kernels are single-threaded: the caller cuts the work into ranges and runs them where it likes.
// No result depends on where the cuts are.
struct IndexRange {
  int64_t begin;
  int64_t end;
};

}  // namespace muster

#endif  // MUSTER_KERNELS_INDEX_RANGE_H_
