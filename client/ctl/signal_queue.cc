#include "client/ctl/signal_queue.h"

#include <csignal>

namespace muster::ctl {
namespace {

bool IsIgnored(int signal) {
  struct sigaction action;
  return sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

}  // namespace

SignalQueue::SignalQueue() {
  // The kernel would keep the ends of children to itself.
  std::signal(SIGCHLD, SIG_DFL);
  sigemptyset(&held_);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) {
    // Held back it would come all the same: nohup means it.
    if (!IsIgnored(signal)) sigaddset(&held_, signal);
  }
  pthread_sigmask(SIG_BLOCK, &held_, nullptr);
  // A display on a terminal must not stop a background process either.
  for (int signal : {SIGPIPE, SIGTTOU}) std::signal(signal, SIG_IGN);
}

int SignalQueue::Wait(absl::Duration timeout) {
  const timespec limit = absl::ToTimespec(std::max(absl::ZeroDuration(), timeout));
  const int signal = sigtimedwait(&held_, nullptr, &limit);
  return signal < 0 ? 0 : signal;
}

bool SignalQueue::AsksToEnd(int signal) {
  return signal == SIGINT || signal == SIGTERM || signal == SIGHUP;
}

}  // namespace muster::ctl
