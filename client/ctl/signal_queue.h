// Signals as values that the main thread takes one by one.
#ifndef MUSTER_CLIENT_CTL_SIGNAL_QUEUE_H_
#define MUSTER_CLIENT_CTL_SIGNAL_QUEUE_H_

#include <csignal>

#include "absl/time/time.h"

namespace muster::ctl {

// Make it before any thread is started: threads inherit which signals are blocked. Holds back
// SIGINT, SIGTERM and SIGHUP, where they were not ignored before, and SIGCHLD; ignores SIGPIPE and
// SIGTTOU.
class SignalQueue {
 public:
  SignalQueue();

  // Waits for a signal, or for a child to change; the signal's number, 0 when the time is over.
  int Wait(absl::Duration timeout);

  // True for the signals that ask the program to end.
  static bool AsksToEnd(int signal);

 private:
  sigset_t held_;
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_SIGNAL_QUEUE_H_
