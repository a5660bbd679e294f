#include "client/ctl/signal_queue.h"

#include <csignal>

namespace muster::ctl {
namespace {

sigset_t Held() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&set, signal);
  return set;
}

}  // namespace

SignalQueue::SignalQueue() {
  const sigset_t held = Held();
  pthread_sigmask(SIG_BLOCK, &held, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

int SignalQueue::Wait(absl::Duration timeout) {
  const sigset_t held = Held();
  const timespec limit = absl::ToTimespec(std::max(absl::ZeroDuration(), timeout));
  const int signal = sigtimedwait(&held, nullptr, &limit);
  return signal < 0 ? 0 : signal;
}

bool SignalQueue::AsksToEnd(int signal) {
  return signal == SIGINT || signal == SIGTERM || signal == SIGHUP;
}

}  // namespace muster::ctl
