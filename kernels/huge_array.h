#ifndef MUSTER_KERNELS_HUGE_ARRAY_H_
#define MUSTER_KERNELS_HUGE_ARRAY_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>

namespace muster {

// Memory in huge pages where the system grants them, as a worker holds weights and KV: benchmarks
// of what streams through gigabytes measure page walks otherwise.
template <typename T>
class HugeArray {
 public:
  explicit HugeArray(size_t size)
      : size_(size), data_(static_cast<T*>(std::aligned_alloc(kHugePage, Bytes()))) {
    madvise(data_, Bytes(), MADV_HUGEPAGE);
  }
  ~HugeArray() { std::free(data_); }
  HugeArray(const HugeArray&) = delete;
  HugeArray& operator=(const HugeArray&) = delete;

  T* data() { return data_; }
  size_t size() const { return size_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;

  size_t Bytes() const { return (size_ * sizeof(T) + kHugePage - 1) / kHugePage * kHugePage; }

  size_t size_;
  T* data_;
};

}  // namespace muster

#endif  // MUSTER_KERNELS_HUGE_ARRAY_H_
