// Inputs that every rank can make for all ranks, and comparison with references.
#ifndef MUSTER_TESTS_CONFORMANCE_NUMBERS_H_
#define MUSTER_TESTS_CONFORMANCE_NUMBERS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/dtype.h"

namespace muster::testing {

using Bytes = std::vector<std::byte>;

// Half the distance of neighbours, relative.
inline constexpr double kFloatRounding = 0x1p-24;
double RoundingOf(DType dtype);
// Half the distance of neighbours about zero.
double TinyOf(DType dtype);

// Rounded to `dtype`, and back.
Bytes Encode(const std::vector<float>& values, DType dtype);
std::vector<float> Decode(const Bytes& bytes, DType dtype);

// `count` numbers in [-2, 2) that `dtype` can hold, the same in every process. `of` is anything
// that tells them apart, "partial of rank 3".
std::vector<float> RandomNumbers(absl::string_view of, size_t count, DType dtype);
Bytes RandomBytes(absl::string_view of, size_t count);

// DATA_LOSS names the first element that differs by more than tolerance(i), or in being a NaN, an
// infinity or (where the tolerance is 0) in its sign.
absl::Status ExpectNear(absl::string_view what, const std::vector<float>& got,
                        const std::vector<double>& wanted,
                        absl::FunctionRef<double(size_t)> tolerance);
absl::Status ExpectEqual(absl::string_view what, const std::vector<float>& got,
                         const std::vector<float>& wanted);
absl::Status ExpectEqual(absl::string_view what, const Bytes& got, const Bytes& wanted);

// OK when `status` is what was wanted.
absl::Status ExpectStatus(const absl::Status& status, absl::StatusCode code,
                          absl::string_view part_of_message);
absl::Status ExpectTrue(bool condition, absl::string_view what);

}  // namespace muster::testing

#endif  // MUSTER_TESTS_CONFORMANCE_NUMBERS_H_
