// Limits of what comes from the wire. INVALID_ARGUMENT names the field, its value and the limit.
#ifndef MUSTER_BASE_WIRE_CHECK_H_
#define MUSTER_BASE_WIRE_CHECK_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace muster {

inline constexpr uint32_t kMaxWireAxis = 1024;  // of each parallel size
inline constexpr size_t kMaxWireName = 256;     // bytes

inline absl::Status CheckWireRange(absl::string_view field, uint64_t value, uint64_t least,
                                   uint64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; it can be ", least, " to ", most));
}

inline absl::Status CheckWireLength(absl::string_view field, const std::string& text,
                                    size_t most = kMaxWireName) {
  if (text.size() <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " has ", text.size(), " bytes; it can have ", most));
}

}  // namespace muster

#endif  // MUSTER_BASE_WIRE_CHECK_H_
