#include "client/ctl/signal_queue.h"

#include <gtest/gtest.h>

#include <csignal>

namespace muster::ctl {
namespace {

TEST(SignalQueueTest, ASignalThatWasIgnoredBeforeStaysSo) {
  std::signal(SIGHUP, SIG_IGN);
  SignalQueue signals;
  raise(SIGHUP);
  EXPECT_EQ(signals.Wait(absl::ZeroDuration()), 0) << "nohup means it";
  raise(SIGTERM);
  EXPECT_EQ(signals.Wait(absl::ZeroDuration()), SIGTERM);
}

TEST(SignalQueueTest, ChildrenAreHeardOfThoughTheirEndsWereIgnoredBefore) {
  std::signal(SIGCHLD, SIG_IGN);
  SignalQueue signals;
  struct sigaction action;
  ASSERT_EQ(sigaction(SIGCHLD, nullptr, &action), 0);
  EXPECT_EQ(action.sa_handler, SIG_DFL);
}

}  // namespace
}  // namespace muster::ctl
