// A coordinator and its workers as processes of this machine.
#ifndef MUSTER_CLIENT_CTL_LOCAL_FLEET_H_
#define MUSTER_CLIENT_CTL_LOCAL_FLEET_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/ctl/child_process.h"
#include "client/ctl/fleet_certificates.h"
#include "client/ctl/signal_queue.h"

namespace muster::ctl {

struct LocalFleetOptions {
  std::string model;
  int tp = 1;
  int cp = 2;
  int replicas = 1;
  // Workers beyond those that hold a rank.
  int standbys = 0;
  // "MIN:MAX" of cp, as the coordinator takes it; empty leaves it to the coordinator.
  std::string resize_range;
  // Compute threads of each worker; 0 shares the machine's cores out evenly.
  int threads = 0;
  std::string dtype = "auto";
  // E.g. "512MiB"; empty leaves it to the worker.
  std::string kv_memory;
  // "auto", "cpu", "cuda", "cuda:N" or "cuda:UUID". With "cuda" each GPU gets `oversubscribe`
  // workers in turn, the one with the lowest ordinal first. With "auto" all are told "cpu" where
  // this machine has GPUs but too few for all.
  std::string device = "auto";
  // GPUs of this machine; -1: as many as there are device files.
  int gpus = -1;
  // Workers that share a GPU.
  int oversubscribe = 1;
  // "auto", "safetensors" or "dummy"; empty leaves it to the worker.
  std::string load_format;
  // Of the device's memory, e.g. "0.8"; empty leaves it to the worker.
  std::string memory_fraction;
  bool no_fusion = false;
  bool no_graphs = false;
  // Talk by TLS, each process with a certificate of its own.
  bool tls = false;
  // Receives coordinator.log, w0.log, ...; empty keeps them in memory.
  std::string log_dir;
  std::string listen = "127.0.0.1:0";
  // Where muster-coordinator and muster-worker are; empty: beside this program.
  std::string bin_dir;
  // Fault of a worker, by its id, e.g. {"w1", "kill@warmup/exchange"}.
  std::map<std::string, std::string> faults;

  // With a rank.
  int ranks() const { return tp * cp * replicas; }
  int workers() const { return ranks() + standbys; }
};

// Workers are named w0, w1, ... Each listens on a Unix socket as well, where this user has a
// directory of his own for it. Not thread-safe; see ChildProcess.
class LocalFleet {
 public:
  // Removes the sockets of workers that could not do so themselves.
  ~LocalFleet();

  // Starts the coordinator, waits until it listens, starts the workers that will hold a rank.
  // Errors: NOT_FOUND (a program is missing), CANCELLED (a signal asked to end), UNAVAILABLE (the
  // coordinator ended, with its own words, or did not listen in time).
  static absl::StatusOr<std::unique_ptr<LocalFleet>> Start(const LocalFleetOptions& options,
                                                           SignalQueue& signals);

  // Starts the standbys, the first time that it is called. They come when the others are enlisted,
  // so that they are those without a rank. Errors: as of ChildProcess::Start.
  absl::Status StartStandbys();
  int standbys() const { return options_.standbys; }

  // Those that ended since the last call.
  std::vector<const ChildProcess*> TakeEnded();

  // Asks all to end, kills what has not within `grace`, and returns when nothing is left.
  // A further signal that asks to end cuts the grace short.
  void Stop(SignalQueue& signals, absl::Duration grace = absl::Milliseconds(1200));

  const std::string& coordinator_address() const { return coordinator_address_; }
  // The coordinator first, then the workers in order; standbys once they are started.
  const std::vector<std::unique_ptr<ChildProcess>>& processes() const { return processes_; }
  // Of a client, "operator" or "scheduler", or of the authority, "ca"; empty without TLS.
  std::string TlsFolder(absl::string_view holder) const;
  // "w0", ..., in order.
  static std::string WorkerId(int index);

 private:
  LocalFleet(const LocalFleetOptions& options, std::string bin_dir)
      : options_(options), bin_dir_(std::move(bin_dir)) {}

  absl::Status MakeCertificates();
  // Of the daemon that holds the certificate of `holder`.
  void AddTls(absl::string_view holder, std::vector<std::string>& command) const;
  absl::Status StartCoordinator(SignalQueue& signals);
  // Those with an index in [begin, end).
  absl::Status StartWorkers(int begin, int end);
  absl::Status AwaitCoordinator(const std::string& port_file, SignalQueue& signals);

  const LocalFleetOptions options_;
  const std::string bin_dir_;
  std::unique_ptr<FleetCertificates> certificates_;  // null without TLS; outlives the processes
  bool standbys_started_ = false;
  std::vector<std::unique_ptr<ChildProcess>> processes_;
  std::vector<bool> taken_;  // by index into processes_
  std::string coordinator_address_;
  std::vector<std::string> sockets_;  // paths, of workers that have one
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_LOCAL_FLEET_H_
