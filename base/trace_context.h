// The trace that a request is part of, as its client's W3C `traceparent` header names it.
#ifndef MUSTER_BASE_TRACE_CONTEXT_H_
#define MUSTER_BASE_TRACE_CONTEXT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace muster {

// Not both halves of the trace are 0 where there is one.
struct TraceContext {
  uint64_t trace_high = 0;
  uint64_t trace_low = 0;
  uint64_t parent_span = 0;
  bool sampled = false;

  bool is_set() const { return trace_high != 0 || trace_low != 0; }
  // 32 and 16 lower-case hexadecimal digits; empty where there is no trace.
  std::string trace_id() const;
  std::string parent_span_id() const;

  friend bool operator==(const TraceContext&, const TraceContext&) = default;
};

// https://www.w3.org/TR/trace-context-1/#traceparent-header, version 00 and what later versions
// keep of it. Nothing for what is malformed, which is to be ignored.
std::optional<TraceContext> ParseTraceParent(absl::string_view header);

}  // namespace muster

#endif  // MUSTER_BASE_TRACE_CONTEXT_H_
