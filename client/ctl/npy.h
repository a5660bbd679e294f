// Arrays of float32 as NumPy's files hold them.
#ifndef MUSTER_CLIENT_CTL_NPY_H_
#define MUSTER_CLIENT_CTL_NPY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster::ctl {

struct FloatArray {
  std::vector<uint64_t> shape;
  std::vector<float> values;  // row by row; as many as the shape says
};

// The bytes of a .npy file, version 1.0: float32, little endian, C order. Format:
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
std::string ToNpy(const FloatArray& array);

// The array that the bytes of a .npy file (version 1.0, 2.0 or 3.0) hold. Nothing else than float32
// in C order is taken, and not a byte too few or too many.
// INVALID_ARGUMENT: says what is in its place.
absl::StatusOr<FloatArray> ParseNpy(absl::string_view bytes);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_NPY_H_
