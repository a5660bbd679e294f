// The largest sizes that a config.json may ask for, and how sizes are read.
#ifndef MUSTER_WORKER_MODEL_CONFIG_LIMITS_H_
#define MUSTER_WORKER_MODEL_CONFIG_LIMITS_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "worker/model/json_object.h"

namespace muster {

inline constexpr int64_t kMaxLayers = 4096;
inline constexpr int64_t kMaxWidth = int64_t{1} << 22;  // hidden, ffn, heads * head_dim
inline constexpr int64_t kMaxHeads = 4096;
inline constexpr int64_t kMaxHeadWidth = 256;
inline constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
inline constexpr int64_t kMaxPositions = int64_t{1} << 24;

// Least and most, both allowed.
struct SizeLimits {
  int64_t min = 1;
  int64_t max = 0;  // fits an int
};

// Required unless there is a `fallback`.
inline absl::Status ReadSize(const JsonObject& json, absl::string_view field, SizeLimits limits,
                             int& size, std::optional<int64_t> fallback = std::nullopt) {
  MUSTER_ASSIGN_OR_RETURN(const int64_t value,
                          json.Integer(field, limits.min, limits.max, fallback));
  size = static_cast<int>(value);
  return absl::OkStatus();
}

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_CONFIG_LIMITS_H_
