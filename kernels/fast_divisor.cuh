#ifndef MUSTER_KERNELS_FAST_DIVISOR_CUH_
#define MUSTER_KERNELS_FAST_DIVISOR_CUH_

#include <cstdint>

namespace muster {

// Divides non-negative 31-bit numbers by a constant of the launch (Granlund and Montgomery, 1994).
class FastDivisor {
 public:
  FastDivisor() = default;
  explicit FastDivisor(int32_t divisor) : divisor_(divisor) {
    while ((int64_t{1} << shift_) < divisor) ++shift_;
    multiplier_ =
        static_cast<uint32_t>((((uint64_t{1} << shift_) - static_cast<uint64_t>(divisor)) << 32) /
                                  static_cast<uint64_t>(divisor) +
                              1);
  }

  __host__ __device__ int32_t divisor() const { return divisor_; }
  __device__ int32_t Quotient(int32_t n) const {
    const auto dividend = static_cast<uint32_t>(n);
    return static_cast<int32_t>((__umulhi(dividend, multiplier_) + dividend) >> shift_);
  }

 private:
  int32_t divisor_ = 1;
  uint32_t multiplier_ = 1;
  int32_t shift_ = 0;
};

}  // namespace muster

#endif  // MUSTER_KERNELS_FAST_DIVISOR_CUH_
