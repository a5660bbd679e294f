#include "worker/model/convert.h"

#include <cstring>

namespace muster {
namespace {

template <typename From, typename To>
void Convert(const std::byte* from, To* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, from + i * sizeof(From), sizeof(From));
    to[i] = To(static_cast<float>(value));
  }
}

template <typename To>
void ConvertTo(const std::byte* from, DType from_dtype, To* to, int64_t count) {
  switch (from_dtype) {
    case DType::kFloat32:
      return Convert<float>(from, to, count);
    case DType::kBFloat16:
      return Convert<BFloat16>(from, to, count);
    case DType::kFloat16:
      return Convert<Float16>(from, to, count);
  }
}

}  // namespace

void ConvertElements(const std::byte* from, DType from_dtype, void* to, DType to_dtype,
                     int64_t count) {
  if (from_dtype == to_dtype) {
    std::memcpy(to, from, count * SizeOf(to_dtype));
    return;
  }
  switch (to_dtype) {
    case DType::kFloat32:
      return ConvertTo(from, from_dtype, static_cast<float*>(to), count);
    case DType::kBFloat16:
      return ConvertTo(from, from_dtype, static_cast<BFloat16*>(to), count);
    case DType::kFloat16:
      return ConvertTo(from, from_dtype, static_cast<Float16*>(to), count);
  }
}

}  // namespace muster
