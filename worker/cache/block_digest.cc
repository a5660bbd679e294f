#include "worker/cache/block_digest.h"

#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace muster {
namespace {

// Odd numbers without structure: 2^64 over the golden ratio, and primes of xxHash.
constexpr uint64_t kStep = 0x9e3779b97f4a7c15;
alignas(16) constexpr uint64_t kKeys[] = {
    0xc2b2ae3d27d4eb4f, 0x9e3779b185ebca87, 0x165667b19e3779f9, 0x85ebca77c2b2ae63,
    0x27d4eb2f165667c5, 0xa0761d6478bd642f, 0xe7037ed1a0b428db, 0x8ebc6af09c88c6e3};

uint64_t Scramble(uint64_t word) {
  word = (word ^ (word >> 32)) * 0xd6e8feb86659fd93;
  return word ^ (word >> 32);
}

}  // namespace

void BlockDigest::AddStripesReference(const std::byte* data, size_t stripes) {
  for (size_t stripe = 0; stripe < stripes; ++stripe, ++stripes_) {
    for (int lane = 0; lane < kLanes; ++lane) {
      uint64_t word = 0;
      std::memcpy(&word, data + stripe * kStripe + sizeof(word) * lane, sizeof(word));
      const uint64_t keyed = word ^ (kKeys[lane] + stripes_ * kStep);
      lanes_[lane] += (keyed & 0xffffffff) * (keyed >> 32);
      // Of the neighbour's lane, where no product hides it.
      lanes_[lane ^ 1] += word;
    }
  }
}

#if defined(__SSE2__)

void BlockDigest::AddStripes(const std::byte* data, size_t stripes) {
  auto* const lanes = reinterpret_cast<__m128i*>(lanes_);
  const auto* const keys = reinterpret_cast<const __m128i*>(kKeys);
  __m128i sums[4] = {lanes[0], lanes[1], lanes[2], lanes[3]};
  const __m128i step = _mm_set1_epi64x(static_cast<int64_t>(kStep));
  __m128i offset = _mm_set1_epi64x(static_cast<int64_t>(stripes_ * kStep));
  for (size_t stripe = 0; stripe < stripes; ++stripe, data += kStripe) {
    for (int pair = 0; pair < 4; ++pair) {
      const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data) + pair);
      const __m128i keyed = _mm_xor_si128(words, _mm_add_epi64(keys[pair], offset));
      const __m128i product = _mm_mul_epu32(keyed, _mm_shuffle_epi32(keyed, 0x31));
      const __m128i swapped = _mm_shuffle_epi32(words, 0x4e);
      sums[pair] = _mm_add_epi64(sums[pair], _mm_add_epi64(product, swapped));
    }
    offset = _mm_add_epi64(offset, step);
  }
  for (int pair = 0; pair < 4; ++pair) lanes[pair] = sums[pair];
  stripes_ += stripes;
}

#else

void BlockDigest::AddStripes(const std::byte* data, size_t stripes) {
  AddStripesReference(data, stripes);
}

#endif

void BlockDigest::Add(const std::byte* data, size_t bytes) {
  AddStripes(data, bytes / kStripe);
  const size_t rest = bytes % kStripe;
  if (rest == 0) return;
  std::byte last[kStripe] = {};
  std::memcpy(last, data + bytes - rest, rest);
  AddStripes(last, 1);
}

uint64_t BlockDigest::value() const {
  uint64_t all = stripes_;
  for (const uint64_t lane : lanes_) all = Scramble(all * kStep + lane);
  return all;
}

}  // namespace muster
