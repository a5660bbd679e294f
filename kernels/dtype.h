#ifndef MUSTER_KERNELS_DTYPE_H_
#define MUSTER_KERNELS_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace muster {

// Element types of weights, of the KV cache and of values exchanged between ranks.
enum class DType : uint8_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

// Bytes of one element.
constexpr size_t SizeOf(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

// "float32", "bfloat16" or "float16", as Hugging Face configurations spell them.
constexpr const char* Name(DType dtype) {
  return dtype == DType::kFloat32 ? "float32" : dtype == DType::kBFloat16 ? "bfloat16" : "float16";
}

// The upper half of an IEEE binary32. Conversion from float rounds to nearest, ties to even;
// overflow gives infinity; a NaN stays a (quiet) NaN; -0 and subnormals are kept.
struct BFloat16 {
  BFloat16() = default;
  explicit BFloat16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof(word));
    const bool is_nan = (word & 0x7FFFFFFFu) > 0x7F800000u;
    const uint32_t rounded = word + 0x7FFFu + ((word >> 16) & 1u);
    bits = static_cast<uint16_t>((is_nan ? (word | 0x400000u) : rounded) >> 16);
  }
  explicit operator float() const {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof(value));
    return value;
  }

  uint16_t bits;
};

// IEEE binary16. Conversion from float rounds to nearest, ties to even; magnitudes of 65520 and
// above give infinity; a NaN stays a (quiet) NaN; -0 and subnormals are kept.
struct Float16 {
  Float16() = default;
  explicit Float16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof(word));
    const uint32_t sign = (word >> 16) & 0x8000u;
    const uint32_t magnitude = word & 0x7FFFFFFFu;
    bits = static_cast<uint16_t>(sign | FromMagnitude(magnitude));
  }
  explicit operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1Fu;
    const uint32_t mantissa = bits & 0x3FFu;
    float value;
    if (exponent == 0) {
      value = static_cast<float>(mantissa) * 0x1p-24f;
      return sign != 0 ? -value : value;
    }
    const uint32_t wide = exponent == 31 ? 0xFFu : exponent + 112u;
    const uint32_t word = sign | (wide << 23) | (mantissa << 13);
    std::memcpy(&value, &word, sizeof(value));
    return value;
  }

  uint16_t bits;

 private:
  // `magnitude`: the bits of a non-negative binary32.
  static uint32_t FromMagnitude(uint32_t magnitude) {
    if (magnitude > 0x7F800000u) return 0x7E00u | ((magnitude >> 13) & 0x3FFu);
    if (magnitude >= 0x477FF000u) return 0x7C00u;  // 65520, halfway from the largest to 65536
    if (magnitude < 0x38800000u) {                 // below 2^-14 the result is subnormal
      float value;
      std::memcpy(&value, &magnitude, sizeof(value));
      value += 0.5f;  // an ulp of [0.5, 1) is 2^-24, a subnormal's: the addition itself rounds
      std::memcpy(&magnitude, &value, sizeof(magnitude));
      return magnitude - 0x3F000000u;
    }
    const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
    return (rounded - 0x38000000u) >> 13;
  }
};

static_assert(sizeof(BFloat16) == 2 && sizeof(Float16) == 2, "16-bit storage");

}  // namespace muster

#endif  // MUSTER_KERNELS_DTYPE_H_
