#include "tests/conformance/numbers.h"

#include <cmath>
#include <cstring>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"

namespace muster::testing {
namespace {

std::mt19937_64 GeneratorOf(absl::string_view of) {
  Digest digest;
  digest.Add(of);
  return std::mt19937_64(digest.value());
}

template <typename T>
Bytes EncodeAs(const std::vector<float>& values) {
  Bytes bytes(values.size() * sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    const T value(values[i]);
    std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
  }
  return bytes;
}

template <typename T>
std::vector<float> DecodeAs(const Bytes& bytes) {
  std::vector<float> values(bytes.size() / sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<float>(value);
  }
  return values;
}

bool Near(double got, double wanted, double tolerance) {
  if (std::isnan(wanted)) return std::isnan(got);
  if (std::isinf(wanted)) return got == wanted;
  if (tolerance == 0) return got == wanted && std::signbit(got) == std::signbit(wanted);
  return std::abs(got - wanted) <= tolerance;
}

}  // namespace

double RoundingOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return kFloatRounding;
    case DType::kBFloat16:
      return 0x1p-8;
    case DType::kFloat16:
      return 0x1p-11;
  }
  return 0;
}

double TinyOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 0x1p-150;
    case DType::kBFloat16:
      return 0x1p-134;
    case DType::kFloat16:
      return 0x1p-25;
  }
  return 0;
}

Bytes Encode(const std::vector<float>& values, DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return EncodeAs<float>(values);
    case DType::kBFloat16:
      return EncodeAs<BFloat16>(values);
    case DType::kFloat16:
      return EncodeAs<Float16>(values);
  }
  return {};
}

std::vector<float> Decode(const Bytes& bytes, DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return DecodeAs<float>(bytes);
    case DType::kBFloat16:
      return DecodeAs<BFloat16>(bytes);
    case DType::kFloat16:
      return DecodeAs<Float16>(bytes);
  }
  return {};
}

std::vector<float> RandomNumbers(absl::string_view of, size_t count, DType dtype) {
  std::mt19937_64 generator = GeneratorOf(of);
  std::vector<float> values(count);
  for (float& value : values) {
    value = static_cast<float>(generator() >> 40) * 0x1p-22f - 2.0f;
  }
  return Decode(Encode(values, dtype), dtype);
}

Bytes RandomBytes(absl::string_view of, size_t count) {
  std::mt19937_64 generator = GeneratorOf(of);
  Bytes bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(generator() & 0xFF);
  return bytes;
}

absl::Status ExpectNear(absl::string_view what, const std::vector<float>& got,
                        const std::vector<double>& wanted,
                        absl::FunctionRef<double(size_t)> tolerance) {
  if (got.size() != wanted.size()) {
    return absl::DataLossError(
        absl::StrCat(what, " has ", got.size(), " elements, wanted ", wanted.size()));
  }
  for (size_t i = 0; i < got.size(); ++i) {
    if (Near(got[i], wanted[i], tolerance(i))) continue;
    return absl::DataLossError(absl::StrCat(what, "[", i, "] of ", got.size(), " is ", got[i],
                                            ", wanted ", wanted[i], " within ", tolerance(i)));
  }
  return absl::OkStatus();
}

absl::Status ExpectEqual(absl::string_view what, const std::vector<float>& got,
                         const std::vector<float>& wanted) {
  return ExpectNear(what, got, {wanted.begin(), wanted.end()}, [](size_t) { return 0.0; });
}

absl::Status ExpectEqual(absl::string_view what, const Bytes& got, const Bytes& wanted) {
  if (got == wanted) return absl::OkStatus();
  size_t at = 0;
  while (at < got.size() && at < wanted.size() && got[at] == wanted[at]) ++at;
  return absl::DataLossError(absl::StrCat(what, " of ", got.size(), " bytes, wanted ",
                                          wanted.size(), ", differs from byte ", at, " on"));
}

absl::Status ExpectStatus(const absl::Status& status, absl::StatusCode code,
                          absl::string_view part_of_message) {
  if (status.code() == code && absl::StrContains(status.message(), part_of_message)) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat("got ", status.ToString(), "\nwanted ",
                                          absl::StatusCodeToString(code), " with '",
                                          part_of_message, "'"));
}

absl::Status ExpectTrue(bool condition, absl::string_view what) {
  return condition ? absl::OkStatus() : absl::DataLossError(absl::StrCat("not so: ", what));
}

}  // namespace muster::testing
