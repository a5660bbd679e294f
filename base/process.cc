#include "base/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace muster {
namespace {

sigset_t EndingSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

bool WriteAll(int fd, const std::string& text) {
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t n = write(fd, text.data() + written, text.size() - written);
    if (n < 0 && errno != EINTR) return false;
    if (n > 0) written += static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

ShutdownSignal::ShutdownSignal() {
  const sigset_t set = EndingSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int ShutdownSignal::Wait() {
  const sigset_t set = EndingSignals();
  int number = 0;
  sigwait(&set, &number);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  return number;
}

void ShutdownSignal::Request() { kill(getpid(), SIGTERM); }

void RaiseOpenFilesLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

absl::Status DieWithParent(pid_t parent) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
    return absl::ErrnoToStatus(errno, "cannot ask to end with the parent process");
  }
  // A parent that ended before the request sends nothing; it shows as another parent.
  if (parent == 1 || getppid() != parent) {
    return absl::FailedPreconditionError("the parent process has ended already");
  }
  return absl::OkStatus();
}

void ExitWithin(absl::Duration grace, int exit_code) {
  std::thread([grace, exit_code] {
    absl::SleepFor(grace);
    _exit(exit_code);
  }).detach();
}

absl::Status WritePortFile(const std::string& path, const std::string& address) {
  const std::string temporary = absl::StrCat(path, ".", getpid());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write port file ", path));
  const bool written = WriteAll(fd, address + "\n");
  const int write_error = errno;
  close(fd);
  if (!written || rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = written ? errno : write_error;
    unlink(temporary.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("cannot write port file ", path));
  }
  return absl::OkStatus();
}

}  // namespace muster
