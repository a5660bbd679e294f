// What a coordinator is told on its command line.
#ifndef MUSTER_COORDINATOR_OPTIONS_H_
#define MUSTER_COORDINATOR_OPTIONS_H_

#include <iosfwd>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/listen_address.h"
#include "base/topology.h"
#include "coordinator/placement.h"

namespace muster {

struct CoordinatorOptions {
  ListenAddress listen = {.host = "127.0.0.1", .port = 7600};
  ParallelConfig config;                             // pp is 1
  bool replica_per_domain = false;                   // instead of config.replicas
  CpRange resize_range = DefaultCpRange(1);          // holds config.cp
  absl::Duration lease = absl::Milliseconds(1500);   // longest silence of a worker
  absl::Duration phase_timeout = absl::Seconds(60);  // longest time without progress
  std::string admin_listen;                          // "host:port"; empty for no admin port
  std::string port_file;                             // path; empty for none
  std::string log_level = "info";                    // as InitLogging() takes it
  std::string log_format = "text";                   // the same
  bool die_with_parent = false;
  std::string tls;        // directory of base/tls_files.h; empty for plaintext
  bool insecure = false;  // plaintext beyond this machine
};

// Nothing when --help or --print-config was asked for and written to `out`. INVALID_ARGUMENT is one
// line that names the flag, its value and what it can be.
absl::StatusOr<std::optional<CoordinatorOptions>> ParseOptions(int argc, const char* const* argv,
                                                               std::ostream& out);

}  // namespace muster

#endif  // MUSTER_COORDINATOR_OPTIONS_H_
