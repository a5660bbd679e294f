#include "base/daemon_metrics.h"

#include <unistd.h>

#include <fstream>

#include "base/metrics/answered_errors.h"
#include "base/wire_json.h"

namespace muster {
namespace {

double ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

void AddErrors(MetricsText& text) {
  text.Counters("muster_errors_total", "Errors that calls and requests were answered with.");
  const AnsweredErrors& errors = AnsweredErrors::Instance();
  for (int reason = 0; reason < v1::ErrorReason_ARRAYSIZE; ++reason) {
    if (!v1::ErrorReason_IsValid(reason)) continue;
    text.Add(static_cast<double>(errors.count(reason)),
             {{"reason", ReasonName(static_cast<v1::ErrorReason>(reason))}});
  }
}

}  // namespace

void AddDaemonMetrics(const DaemonMetrics& daemon, MetricsText& text) {
  text.Gauges("muster_build_info", "Which program this is; always 1.");
  text.Add(1, {{"daemon", daemon.daemon}, {"version", daemon.build}});
  text.Gauge("muster_insecure",
             "1 where plaintext can be reached from other machines: whoever does so can do "
             "everything.",
             daemon.insecure);
  text.Gauge("process_start_time_seconds", "When this process started, since 1970.",
             absl::ToDoubleSeconds(daemon.started - absl::UnixEpoch()));
  text.Gauge("process_resident_memory_bytes", "Memory of this process, of the host.",
             ResidentBytes());
  AddErrors(text);
}

}  // namespace muster
