#include "client/ctl/local_fleet.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/unix_socket.h"
#include "client/ctl/coordinator_record.h"

namespace muster::ctl {
namespace {

constexpr absl::Duration kListenTimeout = absl::Seconds(15);
constexpr absl::Duration kStep = absl::Milliseconds(5);

std::string DirectoryOfThisProgram() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path().string();
}

absl::Status CheckPrograms(const std::string& bin_dir) {
  for (const char* program : {"muster-coordinator", "muster-worker"}) {
    const std::string path = absl::StrCat(bin_dir, "/", program);
    if (access(path.c_str(), X_OK) != 0) {
      return absl::NotFoundError(
          absl::StrCat("there is no program ", path, ": build it, or name its place by --bin-dir"));
    }
  }
  return absl::OkStatus();
}

std::string LogPath(const LocalFleetOptions& options, const std::string& name) {
  return options.log_dir.empty() ? "" : absl::StrCat(options.log_dir, "/", name, ".log");
}

// Logs kept in memory hold only what explains an end.
std::string LogLevel(const LocalFleetOptions& options) {
  return options.log_dir.empty() ? "warning" : "info";
}

int ThreadsPerWorker(const LocalFleetOptions& options) {
  if (options.threads > 0) return options.threads;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, cores / options.workers());
}

// GPUs whose driver is loaded: /dev/nvidia0, ...
int CountGpus() {
  int count = 0;
  while (access(absl::StrCat("/dev/nvidia", count).c_str(), F_OK) == 0) ++count;
  return count;
}

// Empty where the worker's default is right.
std::string DeviceOf(const LocalFleetOptions& options, int index) {
  if (options.device == "cuda") return absl::StrCat("cuda:", index / options.oversubscribe);
  if (options.device != "auto") return options.device;
  const int gpus = options.gpus < 0 ? CountGpus() : options.gpus;
  return gpus > 0 && options.workers() > gpus * options.oversubscribe ? "cpu" : "";
}

void AddDevice(const LocalFleetOptions& options, int index, std::vector<std::string>& command) {
  const std::vector<std::pair<std::string, std::string>> flags = {
      {"--kv-memory", options.kv_memory},
      {"--device", DeviceOf(options, index)},
      {"--oversubscribe",
       options.oversubscribe > 1 ? absl::StrCat(options.oversubscribe) : std::string()},
      {"--load-format", options.load_format},
      {"--memory-fraction", options.memory_fraction}};
  for (const auto& [flag, value] : flags) {
    if (!value.empty()) command.insert(command.end(), {flag, value});
  }
}

std::vector<std::string> WorkerCommand(const LocalFleetOptions& options, const std::string& path,
                                       const std::string& coordinator, int index) {
  const std::string id = LocalFleet::WorkerId(index);
  std::vector<std::string> command = {path,
                                      "--coordinator",
                                      coordinator,
                                      "--worker-id",
                                      id,
                                      "--model",
                                      options.model,
                                      "--dtype",
                                      options.dtype,
                                      "--threads",
                                      absl::StrCat(ThreadsPerWorker(options)),
                                      "--device-ordinal",
                                      absl::StrCat(index),
                                      "--log-level",
                                      LogLevel(options)};
  AddDevice(options, index, command);
  if (options.no_fusion) command.push_back("--no-fusion");
  if (options.no_graphs) command.push_back("--no-graphs");
  if (const auto fault = options.faults.find(id); fault != options.faults.end()) {
    command.insert(command.end(), {"--fault", fault->second});
  }
  return command;
}

std::vector<std::string> CoordinatorCommand(const LocalFleetOptions& options,
                                            const std::string& bin_dir,
                                            const std::string& port_file) {
  std::vector<std::string> command = {bin_dir + "/muster-coordinator",
                                      "--listen",
                                      options.listen,
                                      "--tp",
                                      absl::StrCat(options.tp),
                                      "--cp",
                                      absl::StrCat(options.cp),
                                      "--replicas",
                                      absl::StrCat(options.replicas),
                                      "--port-file",
                                      port_file,
                                      "--log-level",
                                      LogLevel(options)};
  if (!options.resize_range.empty()) {
    command.insert(command.end(), {"--resize-range", options.resize_range});
  }
  return command;
}

// Of a worker of this fleet, with others' fleets beside it; empty where there can be none.
std::string SocketPath(const CoordinatorRecord& record, int index) {
  std::string path =
      absl::StrCat(record.directory(), "/up-", getpid(), "-", LocalFleet::WorkerId(index), ".sock");
  return PrepareUnixSocket(path).ok() ? path : "";
}

// Removes the file when it goes.
struct TemporaryFile {
  std::string path;
  ~TemporaryFile() { unlink(path.c_str()); }
};

}  // namespace

absl::StatusOr<std::unique_ptr<LocalFleet>> LocalFleet::Start(const LocalFleetOptions& options,
                                                              SignalQueue& signals) {
  const std::string bin_dir = options.bin_dir.empty() ? DirectoryOfThisProgram() : options.bin_dir;
  MUSTER_RETURN_IF_ERROR(CheckPrograms(bin_dir));
  if (!options.log_dir.empty()) {
    std::error_code error;
    std::filesystem::create_directories(options.log_dir, error);
    if (error) {
      return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot create ", options.log_dir));
    }
  }
  std::unique_ptr<LocalFleet> fleet(new LocalFleet(options, bin_dir));
  MUSTER_RETURN_IF_ERROR(fleet->MakeCertificates());
  MUSTER_RETURN_IF_ERROR(fleet->StartCoordinator(signals));
  MUSTER_RETURN_IF_ERROR(fleet->StartWorkers(0, options.ranks()));
  return fleet;
}

absl::Status LocalFleet::MakeCertificates() {
  if (!options_.tls) return absl::OkStatus();
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorRecord record, CoordinatorRecord::Open());
  std::vector<std::string> ids;
  for (int i = 0; i < options_.workers(); ++i) ids.push_back(WorkerId(i));
  MUSTER_ASSIGN_OR_RETURN(certificates_, FleetCertificates::Make(record.directory(), ids));
  return absl::OkStatus();
}

std::string LocalFleet::TlsFolder(absl::string_view holder) const {
  return certificates_ == nullptr ? "" : certificates_->Folder(holder);
}

void LocalFleet::AddTls(absl::string_view holder, std::vector<std::string>& command) const {
  if (certificates_ != nullptr) command.insert(command.end(), {"--tls", TlsFolder(holder)});
}

absl::Status LocalFleet::StartCoordinator(SignalQueue& signals) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorRecord record, CoordinatorRecord::Open());
  const TemporaryFile port_file{absl::StrCat(record.directory(), "/up-", getpid(), ".port")};
  unlink(port_file.path.c_str());
  std::vector<std::string> command = CoordinatorCommand(options_, bin_dir_, port_file.path);
  AddTls("coordinator", command);
  MUSTER_ASSIGN_OR_RETURN(auto process,
                          ChildProcess::Start({.name = "the coordinator",
                                               .command = std::move(command),
                                               .log_path = LogPath(options_, "coordinator")}));
  processes_.push_back(std::move(process));
  return AwaitCoordinator(port_file.path, signals);
}

absl::Status LocalFleet::AwaitCoordinator(const std::string& port_file, SignalQueue& signals) {
  const absl::Time deadline = absl::Now() + kListenTimeout;
  while (true) {
    std::ifstream file(port_file);
    if (std::getline(file, coordinator_address_) && !coordinator_address_.empty()) {
      return absl::OkStatus();
    }
    if (processes_[0]->HasEnded()) {
      return absl::UnavailableError(absl::StrCat("the coordinator: ", processes_[0]->Fate()));
    }
    if (absl::Now() > deadline) {
      return absl::UnavailableError(absl::StrCat("the coordinator has not listened within ",
                                                 absl::FormatDuration(kListenTimeout)));
    }
    if (SignalQueue::AsksToEnd(signals.Wait(kStep))) return absl::CancelledError("interrupted");
  }
}

absl::Status LocalFleet::StartStandbys() {
  if (std::exchange(standbys_started_, true)) return absl::OkStatus();
  return StartWorkers(options_.ranks(), options_.workers());
}

absl::Status LocalFleet::StartWorkers(int begin, int end) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorRecord record, CoordinatorRecord::Open());
  for (int i = begin; i < end; ++i) {
    std::vector<std::string> command =
        WorkerCommand(options_, bin_dir_ + "/muster-worker", coordinator_address_, i);
    AddTls(WorkerId(i), command);
    if (const std::string socket = SocketPath(record, i); !socket.empty()) {
      command.insert(command.end(), {"--unix-socket", socket});
      sockets_.push_back(socket);
    }
    MUSTER_ASSIGN_OR_RETURN(auto process,
                            ChildProcess::Start({.name = absl::StrCat("worker ", WorkerId(i)),
                                                 .command = std::move(command),
                                                 .log_path = LogPath(options_, WorkerId(i))}));
    processes_.push_back(std::move(process));
  }
  taken_.resize(processes_.size());
  return absl::OkStatus();
}

LocalFleet::~LocalFleet() {
  for (const std::string& socket : sockets_) unlink(socket.c_str());
}

std::vector<const ChildProcess*> LocalFleet::TakeEnded() {
  std::vector<const ChildProcess*> ended;
  for (size_t i = 0; i < processes_.size(); ++i) {
    if (taken_[i] || !processes_[i]->HasEnded()) continue;
    taken_[i] = true;
    ended.push_back(processes_[i].get());
  }
  return ended;
}

void LocalFleet::Stop(SignalQueue& signals, absl::Duration grace) {
  // Not SIGTERM: a worker would look for somebody who takes its rank over.
  for (auto& process : processes_) process->Signal(SIGINT);
  const absl::Time deadline = absl::Now() + grace;
  const auto all_ended = [this] {
    // Every one is looked at, so that none stays a zombie.
    return std::count_if(processes_.begin(), processes_.end(), [](auto& process) {
             return process->HasEnded();
           }) == static_cast<ptrdiff_t>(processes_.size());
  };
  while (!all_ended() && absl::Now() < deadline) {
    if (SignalQueue::AsksToEnd(signals.Wait(kStep))) break;
  }
  for (auto& process : processes_) process->Signal(SIGKILL);
  while (!all_ended()) signals.Wait(kStep);
}

std::string LocalFleet::WorkerId(int index) { return absl::StrCat("w", index); }

}  // namespace muster::ctl
