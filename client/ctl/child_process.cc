#include "client/ctl/child_process.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace muster::ctl {
namespace {

constexpr off_t kTailBytes = 16 << 10;

absl::StatusOr<int> OpenLog(const ChildProcess::Options& options) {
  const int log =
      options.log_path.empty()
          ? memfd_create(options.name.c_str(), MFD_CLOEXEC)
          : open(options.log_path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot open the log of ", options.name, " ", options.log_path));
  }
  return log;
}

// In the child, between fork and exec: only calls that are safe there.
[[noreturn]] void Become(char* const* arguments, int log, pid_t parent) {
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  std::signal(SIGPIPE, SIG_DFL);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the line above.
  if (getppid() != parent) _exit(1);
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execv(arguments[0], arguments);
  const char* reason = strerrordesc_np(errno);
  dprintf(STDERR_FILENO, "cannot run %s: %s\n", arguments[0], reason);
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const Options& options) {
  const absl::StatusOr<int> log = OpenLog(options);
  if (!log.ok()) return log.status();
  std::vector<char*> arguments;
  for (const std::string& word : options.command) {
    arguments.push_back(const_cast<char*>(word.c_str()));
  }
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) Become(arguments.data(), *log, parent);
  if (pid < 0) {
    const int error = errno;
    close(*log);
    return absl::ErrnoToStatus(error, absl::StrCat("cannot start ", options.name));
  }
  const std::string& path = options.command[0];
  return std::unique_ptr<ChildProcess>(
      new ChildProcess(options.name, path.substr(path.rfind('/') + 1), pid, *log));
}

ChildProcess::~ChildProcess() {
  if (!HasEnded()) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(log_);
}

bool ChildProcess::HasEnded() {
  int status = 0;
  if (ended_ || waitpid(pid_, &status, WNOHANG) != pid_) return ended_;
  ended_ = true;
  killed_by_signal_ = WIFSIGNALED(status);
  exit_status_ = killed_by_signal_ ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return true;
}

void ChildProcess::Signal(int signal) {
  if (!HasEnded()) kill(pid_, signal);
}

std::string ChildProcess::Fate() const {
  if (killed_by_signal_) {
    const int signal = exit_status_ - 128;
    return absl::StrCat("was killed by signal ", signal, " (", sigdescr_np(signal), ")");
  }
  const std::string line = exit_status_ == 0 ? "" : LastLine();
  return line.empty() ? absl::StrCat("ended with status ", exit_status_) : line;
}

std::string ChildProcess::LastLine() const {
  const off_t end = lseek(log_, 0, SEEK_END);
  const off_t begin = std::max<off_t>(0, end - kTailBytes);
  std::string tail(static_cast<size_t>(end - begin), '\0');
  const ssize_t got = pread(log_, tail.data(), tail.size(), begin);
  tail.resize(std::max<ssize_t>(0, got));
  const std::vector<absl::string_view> lines = absl::StrSplit(tail, '\n', absl::SkipWhitespace());
  if (lines.empty()) return "";
  // The program's own word on why it ends, if it had one; other lines are its log.
  const std::string prefix = absl::StrCat(program_, ": ");
  const auto own = std::find_if(lines.rbegin(), lines.rend(), [&](absl::string_view line) {
    return absl::StartsWith(line, prefix);
  });
  const absl::string_view line = own != lines.rend() ? *own : lines.back();
  return std::string(absl::StripAsciiWhitespace(absl::StripPrefix(line, prefix)));
}

}  // namespace muster::ctl
