// Early return on an absl::Status that is not OK.
#ifndef MUSTER_BASE_STATUS_MACROS_H_
#define MUSTER_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define MUSTER_RETURN_IF_ERROR(expr)                                \
  do {                                                              \
    if (absl::Status muster_status = (expr); !muster_status.ok()) { \
      return muster_status;                                         \
    }                                                               \
  } while (false)

#define MUSTER_MACRO_CONCAT_INNER(a, b) a##b
#define MUSTER_MACRO_CONCAT(a, b) MUSTER_MACRO_CONCAT_INNER(a, b)

#define MUSTER_ASSIGN_OR_RETURN(lhs, expr) \
  MUSTER_ASSIGN_OR_RETURN_INNER(MUSTER_MACRO_CONCAT(muster_or_, __LINE__), lhs, expr)
#define MUSTER_ASSIGN_OR_RETURN_INNER(result, lhs, expr) \
  auto result = (expr);                                  \
  if (!result.ok()) return std::move(result).status();   \
  lhs = std::move(result).value()

#endif  // MUSTER_BASE_STATUS_MACROS_H_
