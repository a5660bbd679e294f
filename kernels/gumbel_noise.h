// The random numbers that tokens are drawn with. What is constexpr is the same on the device.
#ifndef MUSTER_KERNELS_GUMBEL_NOISE_H_
#define MUSTER_KERNELS_GUMBEL_NOISE_H_

#include <array>
#include <cmath>
#include <cstdint>

namespace muster {

inline constexpr int kPhiloxRounds = 10;
inline constexpr uint32_t kPhiloxFactors[] = {0xD2511F53u, 0xCD9E8D57u};
inline constexpr uint32_t kPhiloxWeyl[] = {0x9E3779B9u, 0xBB67AE85u};

// Philox4x32-10 (Salmon et al., SC'11): four 32-bit random words for a counter and a key.
constexpr std::array<uint32_t, 4> Philox4x32(const std::array<uint32_t, 4>& counter,
                                             const std::array<uint32_t, 2>& key) {
  constexpr uint64_t kFactor0 = kPhiloxFactors[0], kFactor1 = kPhiloxFactors[1];
  constexpr uint32_t kWeyl0 = kPhiloxWeyl[0], kWeyl1 = kPhiloxWeyl[1];
  uint32_t x0 = counter[0], x1 = counter[1], x2 = counter[2], x3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = kFactor0 * x0;
    const uint64_t product1 = kFactor1 * x2;
    x0 = static_cast<uint32_t>(product1 >> 32) ^ x1 ^ k0;
    x1 = static_cast<uint32_t>(product1);
    x2 = static_cast<uint32_t>(product0 >> 32) ^ x3 ^ k1;
    x3 = static_cast<uint32_t>(product0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return {x0, x1, x2, x3};
}

// What a token's random number depends on, beside its id.
struct DrawKey {
  uint64_t seed = 0;
  int64_t position = 0;  // of the token to be drawn, in its sequence
};

// The random words of a token. The first two make its number, the first alone 32 bits of it.
constexpr std::array<uint32_t, 4> DrawWords(const DrawKey& key, int32_t id) {
  const uint64_t position = static_cast<uint64_t>(key.position);
  return Philox4x32({static_cast<uint32_t>(id), 0, static_cast<uint32_t>(position),
                     static_cast<uint32_t>(position >> 32)},
                    {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
}

// Uniform in (0, 1].
constexpr double DrawUniform(const DrawKey& key, int32_t id) {
  const std::array<uint32_t, 4> words = DrawWords(key, id);
  const uint64_t bits = (uint64_t{words[0]} << 21) ^ (words[1] >> 11);  // 53 of them
  return (static_cast<double>(bits) + 0.5) * 0x1p-53;
}

// -ln(-ln(u)), u uniform: the noise that makes an argmax a draw from the softmax. Above -3.7.
inline double GumbelNoise(const DrawKey& key, int32_t id) {
  return -std::log(-std::log(DrawUniform(key, id)));
}

// Float32 arithmetic that rules tokens out before their noise is computed. With w the first word of
// a token, u <= (w + 1) / 2^32, and so its noise is at most -ln(1 - u) <= -ln(n / 2^32) where
// n = 2^32 - 1 - w; no limit where n is 0. With x = logit * inverse_temperature in float32, the
// token cannot reach a score s when
//   x + |x| * kDrawRounding - ln(n / 2^32) < s - |s| * kDrawRounding - kDrawSlack.
// Rounding of x, n, s and the sums is at most 2^-24 of each; the logarithm is at most 22.2 and is
// right within 4 units in the last place, 8e-6.
inline constexpr float kDrawRounding = 0x1p-22f;
inline constexpr float kDrawSlack = 2e-5f;

}  // namespace muster

#endif  // MUSTER_KERNELS_GUMBEL_NOISE_H_
