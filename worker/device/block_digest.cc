#include "worker/device/block_digest.h"

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace muster {
namespace {

// Odd numbers without structure: 2^64 over the golden ratio, and primes of xxHash.
constexpr uint64_t kStep = 0x9e3779b97f4a7c15;
alignas(32) constexpr uint64_t kKeys[] = {
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

#if defined(__x86_64__)
namespace {

enum class Copy { kNone, kUnaligned, kStreamed };

template <Copy kCopy>
[[gnu::target("avx2")]] void Avx2Stripes(const std::byte* data, size_t stripes, uint64_t done,
                                         uint64_t* lanes, std::byte* copy) {
  auto* const all = reinterpret_cast<__m256i*>(lanes);
  const auto* const keys = reinterpret_cast<const __m256i*>(kKeys);
  __m256i sums[2] = {all[0], all[1]};
  const __m256i step = _mm256_set1_epi64x(static_cast<int64_t>(kStep));
  __m256i offset = _mm256_set1_epi64x(static_cast<int64_t>(done * kStep));
  for (size_t stripe = 0; stripe < stripes; ++stripe, data += BlockDigest::kStripe) {
    for (int half = 0; half < 2; ++half) {
      const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data) + half);
      if constexpr (kCopy == Copy::kStreamed) {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(copy) + half, words);
      } else if constexpr (kCopy == Copy::kUnaligned) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(copy) + half, words);
      }
      const __m256i keyed = _mm256_xor_si256(words, _mm256_add_epi64(keys[half], offset));
      const __m256i product = _mm256_mul_epu32(keyed, _mm256_shuffle_epi32(keyed, 0x31));
      const __m256i swapped = _mm256_shuffle_epi32(words, 0x4e);
      sums[half] = _mm256_add_epi64(sums[half], _mm256_add_epi64(product, swapped));
    }
    if constexpr (kCopy != Copy::kNone) copy += BlockDigest::kStripe;
    offset = _mm256_add_epi64(offset, step);
  }
  for (int half = 0; half < 2; ++half) all[half] = sums[half];
  // Streamed stores are ordered with nothing else.
  if constexpr (kCopy == Copy::kStreamed) _mm_sfence();
}

bool HasAvx2() {
  static const bool has = __builtin_cpu_supports("avx2") != 0;
  return has;
}

}  // namespace
#endif

void BlockDigest::AddStripes(const std::byte* data, size_t stripes, std::byte* copy) {
#if defined(__x86_64__)
  if (HasAvx2()) {
    const bool aligned = reinterpret_cast<uintptr_t>(copy) % sizeof(__m256i) == 0;
    const auto add = copy == nullptr ? Avx2Stripes<Copy::kNone>
                     : aligned       ? Avx2Stripes<Copy::kStreamed>
                                     : Avx2Stripes<Copy::kUnaligned>;
    add(data, stripes, stripes_, lanes_, copy);
    stripes_ += stripes;
    return;
  }
#endif
  if (copy != nullptr) {
    std::memcpy(copy, data, stripes * kStripe);
    data = copy;
  }
  AddStripesReference(data, stripes);
}

void BlockDigest::Add(const std::byte* data, size_t bytes) {
  AddStripes(data, bytes / kStripe, nullptr);
  const size_t rest = bytes % kStripe;
  if (rest == 0) return;
  std::byte last[kStripe] = {};
  std::memcpy(last, data + bytes - rest, rest);
  AddStripes(last, 1, nullptr);
}

void BlockDigest::AddCopying(const std::byte* data, size_t bytes, std::byte* copy) {
  const size_t whole = bytes - bytes % kStripe;
  AddStripes(data, whole / kStripe, copy);
  if (whole == bytes) return;
  std::memcpy(copy + whole, data + whole, bytes - whole);
  Add(copy + whole, bytes - whole);
}

uint64_t BlockDigest::value() const {
  uint64_t all = stripes_;
  for (const uint64_t lane : lanes_) all = Scramble(all * kStep + lane);
  return all;
}

}  // namespace muster
