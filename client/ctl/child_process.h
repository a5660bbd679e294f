// A program that this one has started, and must not outlive it.
#ifndef MUSTER_CLIENT_CTL_CHILD_PROCESS_H_
#define MUSTER_CLIENT_CTL_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace muster::ctl {

// The kernel kills it when the thread that started it ends, however that happens; it is in a
// process group of its own, so that a Ctrl-C of the terminal reaches only its parent.
// Not thread-safe: start and use it in one thread that lives as long as the program.
class ChildProcess {
 public:
  struct Options {
    // For people, e.g. "worker w0".
    std::string name;
    // The program's path, then its arguments.
    std::vector<std::string> command;
    // Receives what the program prints; memory without a name where it is empty.
    std::string log_path;
  };

  // Errors: as of the failed system call; a program that cannot be run ends with status 127.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const Options& options);

  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  // Kills it if it still runs.
  ~ChildProcess();

  // Looks whether it has ended, without waiting; stays true from then on.
  bool HasEnded();
  // Sends a signal, unless it has ended.
  void Signal(int signal);

  // Once it has ended: 128 + signal where one killed it.
  int exit_status() const { return exit_status_; }
  bool killed_by_signal() const { return killed_by_signal_; }
  // Once it has ended, one line: "was killed by signal 9 (Killed)", "ended with status 0", or,
  // after another status, the last line that it printed, without the program's name before it.
  std::string Fate() const;

  const std::string& name() const { return name_; }
  pid_t pid() const { return pid_; }

 private:
  ChildProcess(std::string name, std::string program, pid_t pid, int log)
      : name_(std::move(name)), program_(std::move(program)), pid_(pid), log_(log) {}

  std::string LastLine() const;

  const std::string name_;
  const std::string program_;
  const pid_t pid_;
  const int log_;  // file descriptor
  bool ended_ = false;
  bool killed_by_signal_ = false;
  int exit_status_ = 0;
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_CHILD_PROCESS_H_
