// What a worker is told on its command line.
#ifndef MUSTER_WORKER_OPTIONS_H_
#define MUSTER_WORKER_OPTIONS_H_

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/ids.h"

namespace muster {

// What the process does to itself when it enters a phase, for tests of failure.
struct Fault {
  enum class Action { kKill, kStop };  // SIGKILL, SIGSTOP

  Action action = Action::kKill;
  std::string phase;  // one of those that a worker reports, e.g. "warmup/exchange"

  friend bool operator==(const Fault&, const Fault&) = default;
};

struct WorkerOptions {
  std::string coordinator;             // "host:port"
  std::string listen = "127.0.0.1:0";  // "host:port"; port 0 is chosen by the system
  std::string unix_socket;             // path of a socket to listen on as well; empty for none
  std::string worker_id;               // 1 to 128 of [A-Za-z0-9._-]
  std::string domain;                  // the same; whose workers can open each other's memory
  std::string model;                   // directory
  std::string dtype = "auto";          // "auto", "float32", "bfloat16" or "float16"
  std::string load_format = "auto";    // "auto", "safetensors" or "dummy"
  int threads = 1;                     // 1 to 1,024
  std::optional<uint64_t> kv_memory;   // bytes of KV blocks of this rank; none: as the device is
  absl::Duration client_lease = absl::Minutes(10);  // of a silent client on its sequences
  std::string device = "auto";                      // as ParseDeviceChoice takes it
  DeviceOrdinal device_ordinal;                     // of a CPU slot
  double memory_fraction = 0.9;  // of a GPU's memory, what its ranks may take together
  int oversubscribe = 1;         // ranks that share one GPU, 1 to 16
  bool fusion = true;            // all-reduce, residual and norm as one operation
  bool graphs = true;            // replay captured graphs where a bucket fits
  absl::Duration drain_timeout = absl::Seconds(30);  // from SIGTERM to the end
  std::string admin_listen;                          // "host:port"; empty for no admin port
  absl::Duration stall_timeout = absl::Seconds(5);   // without a step, with work queued
  std::optional<Fault> fault;
  std::string log_level = "info";   // as InitLogging() takes it
  std::string log_format = "text";  // the same
  bool die_with_parent = false;
  std::string tls;        // directory of base/tls_files.h; empty for plaintext
  bool insecure = false;  // plaintext beyond this machine
};

// Defaults that are not in the struct: `worker_id` is that of the certificate under `tls`, else the
// host's name and the process id, `domain` the host's name, `threads` the processors that this
// process may use. Nothing when --help or --print-config was asked for and written to `out`.
// INVALID_ARGUMENT is one line that names the flag, its value and what it can be.
absl::StatusOr<std::optional<WorkerOptions>> ParseOptions(int argc, const char* const* argv,
                                                          std::ostream& out);

}  // namespace muster

#endif  // MUSTER_WORKER_OPTIONS_H_
