// What both daemons do with the process that they are: end with their parent, wait for a signal,
// say where they listen.
#ifndef MUSTER_BASE_PROCESS_H_
#define MUSTER_BASE_PROCESS_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace muster {

// Blocks SIGTERM and SIGINT in this thread and those that it starts later, and ignores SIGPIPE:
// make it first in main. At most one per process.
class ShutdownSignal {
 public:
  ShutdownSignal();
  ShutdownSignal(const ShutdownSignal&) = delete;
  ShutdownSignal& operator=(const ShutdownSignal&) = delete;

  // Returns when SIGTERM or SIGINT came, or Request() was called; the number of the signal.
  // Afterwards a second signal ends the process at once.
  int Wait();

  // As if SIGTERM had come. From any thread.
  static void Request();
};

// From now on this process gets SIGKILL when the thread that started it ends. `parent` is getppid()
// at the start of main. FAILED_PRECONDITION when that parent is gone already.
absl::Status DieWithParent(pid_t parent);

// Lets this process have as many files and connections open as the system allows it to: a thousand
// idle callers must not use up what is left for others.
void RaiseOpenFilesLimit();

// Ends the process with `exit_code` after `grace`, whatever its other threads do: the bound of an
// orderly end.
void ExitWithin(absl::Duration grace, int exit_code);

// Writes `address` and a newline to `path` in one atomic step: a reader sees all of it or no file.
absl::Status WritePortFile(const std::string& path, const std::string& address);

}  // namespace muster

#endif  // MUSTER_BASE_PROCESS_H_
