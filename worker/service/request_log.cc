#include "worker/service/request_log.h"

#include <string>

#include "absl/time/time.h"
#include "base/error.h"
#include "base/logging.h"

namespace muster {
namespace {

std::string Microseconds(absl::Duration duration) {
  return absl::FormatDuration(absl::Trunc(duration, absl::Microseconds(1)));
}

}  // namespace

void LogAnswer(absl::string_view request_id, const TraceContext& trace, Epoch serving,
               const ForwardAnswer& answer) {
  if (answer.ok() && !LogsAt(LogLevel::kDebug)) return;
  const ErrorDetail detail = answer.ok() ? ErrorDetail() : DetailOf(answer.status());
  const LogLevel level = detail.kv_written ? LogLevel::kWarning : LogLevel::kDebug;
  if (!LogsAt(level)) return;
  const std::string trace_id = trace.trace_id();
  LogSubject subject{.request_id = request_id, .trace_id = trace_id};
  if (serving != Epoch()) subject.epoch = serving;
  if (!answer.ok()) {
    if (detail.epoch != Epoch()) subject.epoch = detail.epoch;
    const char* what = detail.kv_written ? "failed after its step had begun: " : "refused: ";
    return LogLine(level, subject, absl::StrCat(what, answer.status().message()));
  }
  const ForwardResult& result = **answer;
  subject.epoch = result.epoch;
  LogLine(level, subject,
          absl::StrCat("answered after step ", result.step.value(), ": queue ",
                       Microseconds(result.queue_time), ", relay ", Microseconds(result.relay_time),
                       ", device ", Microseconds(result.device_time)));
}

}  // namespace muster
