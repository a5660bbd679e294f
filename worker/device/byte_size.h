#ifndef MUSTER_WORKER_DEVICE_BYTE_SIZE_H_
#define MUSTER_WORKER_DEVICE_BYTE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"

namespace muster {

// "1.9 GiB", "17.0 MiB", "3.5 KiB", "12 bytes".
inline std::string ByteSizeString(uint64_t bytes) {
  const double size = static_cast<double>(bytes);
  if (bytes >= uint64_t{1} << 30) return absl::StrFormat("%.1f GiB", size / (1 << 30));
  if (bytes >= uint64_t{1} << 20) return absl::StrFormat("%.1f MiB", size / (1 << 20));
  if (bytes >= uint64_t{1} << 10) return absl::StrFormat("%.1f KiB", size / (1 << 10));
  return absl::StrFormat("%d bytes", bytes);
}

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_BYTE_SIZE_H_
