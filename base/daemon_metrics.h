#ifndef MUSTER_BASE_DAEMON_METRICS_H_
#define MUSTER_BASE_DAEMON_METRICS_H_

#include <string>

#include "absl/time/time.h"
#include "base/metrics/metrics_text.h"

namespace muster {

// What both daemons say of themselves.
struct DaemonMetrics {
  std::string daemon;  // "worker" or "coordinator"
  std::string build;
  bool insecure = false;  // plaintext that other machines reach
  absl::Time started;
};

// muster_build_info, muster_insecure, process_start_time_seconds,
// process_resident_memory_bytes, and muster_errors_total of this process.
void AddDaemonMetrics(const DaemonMetrics& daemon, MetricsText& text);

}  // namespace muster

#endif  // MUSTER_BASE_DAEMON_METRICS_H_
