// The arithmetic of dummy_weights.h, for the host and the device.
#ifndef MUSTER_KERNELS_DUMMY_WEIGHTS_INL_H_
#define MUSTER_KERNELS_DUMMY_WEIGHTS_INL_H_

#include <cstdint>

namespace muster {

// Number `index` of the SplitMix64 generator whose state began as `key`.
constexpr uint64_t DummyHash(uint64_t key, uint64_t index) {
  uint64_t z = key + (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// The sums of four bytes each of elements 2 * pair and, 32 bits higher, 2 * pair + 1.
constexpr uint64_t DummySums(uint64_t key, uint64_t pair) {
  const uint64_t hash = DummyHash(key, pair);
  const uint64_t twos = (hash & 0x00FF00FF00FF00FFu) + ((hash >> 8) & 0x00FF00FF00FF00FFu);
  return (twos + (twos >> 16)) & 0x0000FFFF0000FFFFu;
}

inline constexpr int kDummyLargestSum = 4 * 255;

}  // namespace muster

#endif  // MUSTER_KERNELS_DUMMY_WEIGHTS_INL_H_
