#ifndef MUSTER_KERNELS_KERNEL_TEST_SUPPORT_H_
#define MUSTER_KERNELS_KERNEL_TEST_SUPPORT_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <type_traits>

#include "kernels/dtype.h"
#include "kernels/reference.h"

namespace muster::testing {

inline constexpr float kEpsilon = std::numeric_limits<float>::epsilon();
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// An array that starts `misalignment` elements off a 64-byte boundary and ends where its
// allocation ends, so that AddressSanitizer sees a kernel look past it. Poisoned at first: an
// output that a kernel forgets is a NaN.
template <typename T>
class TestArray {
 public:
  explicit TestArray(size_t size, size_t misalignment = 0)
      : size_(size),
        storage_(new (std::align_val_t{64}) T[size + misalignment]),
        data_(storage_.get() + misalignment) {
    if constexpr (std::is_same_v<T, float>) std::fill_n(data_, size_, kNaN);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }

 private:
  struct Deleter {
    void operator()(T* array) const { operator delete[](array, std::align_val_t{64}); }
  };

  size_t size_;
  std::unique_ptr<T[], Deleter> storage_;
  T* data_;
};

// The same for elements of a type known at run time only.
class TypedArray {
 public:
  TypedArray(DType dtype, size_t size, size_t misalignment = 0)
      : dtype_(dtype), size_(size), bytes_(size * SizeOf(dtype), misalignment * SizeOf(dtype)) {
    for (size_t i = 0; i < size; ++i) Set(i, kNaN);
  }

  DType dtype() const { return dtype_; }
  size_t size() const { return size_; }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  float Get(size_t i) const { return LoadElement(dtype_, data(), static_cast<int64_t>(i)); }
  void Set(size_t i, float value) { StoreElement(value, dtype_, data(), static_cast<int64_t>(i)); }

 private:
  DType dtype_;
  size_t size_;
  TestArray<std::byte> bytes_;
};

// Reproducible random numbers.
class RandomFloats {
 public:
  explicit RandomFloats(uint32_t seed) : engine_(seed) {}

  float Uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(engine_() >> 8) * 0x1p-24f;
  }
  int64_t Integer(int64_t low, int64_t high) {  // both included
    return low + static_cast<int64_t>(engine_() % static_cast<uint32_t>(high - low + 1));
  }
  template <typename Array>
  void Fill(Array& array, float low = -1, float high = 1) {
    for (size_t i = 0; i < array.size(); ++i) Put(array, i, Uniform(low, high));
  }

 private:
  static void Put(TestArray<float>& array, size_t i, float value) { array[i] = value; }
  static void Put(TypedArray& array, size_t i, float value) { array.Set(i, value); }

  std::mt19937 engine_;
};

// Every element must be within its tolerance; a NaN never is. Says which one misses it by most.
// tolerance(i) >= 0 is absolute.
template <typename Tolerance>
::testing::AssertionResult AllClose(const float* expected, const float* actual, size_t count,
                                    const Tolerance& tolerance) {
  size_t worst = count;
  double worst_excess = 0;
  for (size_t i = 0; i < count; ++i) {
    if (expected[i] == actual[i]) continue;
    const double error = double{actual[i]} - expected[i];
    const double excess = (error < 0 ? -error : error) - tolerance(i);
    const bool bad = !(excess <= 0);
    if (bad && (worst == count || excess > worst_excess || excess != excess)) {
      worst = i;
      worst_excess = excess;
    }
  }
  if (worst == count) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "worst at index " << worst << " of " << count << ": expected " << expected[worst]
         << ", got " << actual[worst] << ", tolerance " << tolerance(worst);
}

// The same bits, -0 apart from +0; any NaN equals any other.
::testing::AssertionResult AllSame(const float* expected, const float* actual, size_t count);

// Runs fn once for every instruction set that this machine has and kernels are compiled for.
void ForEachTarget(void (*fn)());

}  // namespace muster::testing

#endif  // MUSTER_KERNELS_KERNEL_TEST_SUPPORT_H_
