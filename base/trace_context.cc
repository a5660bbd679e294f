#include "base/trace_context.h"

#include <cstddef>

#include "absl/strings/str_cat.h"

namespace muster {
namespace {

// "00-TRACE(32)-PARENT(16)-FLAGS(2)"; another version may go on behind it.
constexpr size_t kTraceAt = 3, kParentAt = 36, kFlagsAt = 53, kSize = 55;
constexpr uint64_t kNoVersion = 0xff;

// Lower-case hexadecimal digits alone.
std::optional<uint64_t> ParseHex(absl::string_view digits) {
  uint64_t value = 0;
  for (const char c : digits) {
    const bool is_digit = c >= '0' && c <= '9';
    if (!is_digit && (c < 'a' || c > 'f')) return std::nullopt;
    value = value << 4 | static_cast<uint64_t>(is_digit ? c - '0' : c - 'a' + 10);
  }
  return value;
}

}  // namespace

std::string TraceContext::trace_id() const {
  if (!is_set()) return "";
  return absl::StrCat(absl::Hex(trace_high, absl::kZeroPad16),
                      absl::Hex(trace_low, absl::kZeroPad16));
}

std::string TraceContext::parent_span_id() const {
  return is_set() ? absl::StrCat(absl::Hex(parent_span, absl::kZeroPad16)) : "";
}

std::optional<TraceContext> ParseTraceParent(absl::string_view header) {
  if (header.size() < kSize) return std::nullopt;
  for (const size_t dash : {kTraceAt - 1, kParentAt - 1, kFlagsAt - 1}) {
    if (header[dash] != '-') return std::nullopt;
  }
  const auto version = ParseHex(header.substr(0, 2));
  const auto high = ParseHex(header.substr(kTraceAt, 16));
  const auto low = ParseHex(header.substr(kTraceAt + 16, 16));
  const auto parent = ParseHex(header.substr(kParentAt, 16));
  const auto flags = ParseHex(header.substr(kFlagsAt, 2));
  if (!version || !high || !low || !parent || !flags) return std::nullopt;
  const bool ends_well = header.size() == kSize || (*version != 0 && header[kSize] == '-');
  if (!ends_well || *version == kNoVersion) return std::nullopt;
  if ((*high == 0 && *low == 0) || *parent == 0) return std::nullopt;
  return TraceContext{
      .trace_high = *high, .trace_low = *low, .parent_span = *parent, .sampled = (*flags & 1) != 0};
}

}  // namespace muster
