#include "coordinator/events.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/change_signal.h"

namespace muster {
namespace {

std::vector<std::string> Messages(const std::vector<Event>& events) {
  std::vector<std::string> messages;
  messages.reserve(events.size());
  for (const Event& event : events) {
    messages.push_back(absl::StrCat(event.sequence, " ", event.message));
  }
  return messages;
}

class EventLogTest : public ::testing::Test {
 protected:
  void Append(const std::string& message) {
    log_.Append({.kind = EventKind::kServing, .message = message});
  }
  std::vector<std::string> Read(uint64_t from, size_t limit = 100) {
    return Messages(log_.Read(from, limit));
  }

  FakeClock clock_{absl::FromUnixSeconds(1000)};
  EventLog log_{clock_, /*capacity=*/3};
};

TEST_F(EventLogTest, EventsAreNumberedFromOneAndDated) {
  EXPECT_TRUE(Read(0).empty());
  Append("a");
  clock_.Advance(absl::Seconds(1));
  Append("b");
  EXPECT_EQ(Read(0), (std::vector<std::string>{"1 a", "2 b"}));
  EXPECT_EQ(log_.Read(2, 1).at(0).time, absl::FromUnixSeconds(1001));
}

TEST_F(EventLogTest, TheNewestAreReadInTheirOrder) {
  EXPECT_TRUE(log_.ReadNewest(2).empty());
  for (const char* message : {"a", "b", "c", "d"}) Append(message);
  EXPECT_EQ(Messages(log_.ReadNewest(2)), (std::vector<std::string>{"3 c", "4 d"}));
  EXPECT_EQ(log_.ReadNewest(100).size(), 3u);
}

TEST_F(EventLogTest, ReadingBeginsAtASequenceAndEndsAtALimit) {
  for (const char* message : {"a", "b", "c"}) Append(message);
  EXPECT_EQ(Read(2), (std::vector<std::string>{"2 b", "3 c"}));
  EXPECT_EQ(Read(1, 2), (std::vector<std::string>{"1 a", "2 b"}));
  EXPECT_TRUE(Read(4).empty());
  EXPECT_TRUE(Read(UINT64_MAX).empty());
}

TEST_F(EventLogTest, TheOldestAreDroppedAndTheirNumbersStayTaken) {
  for (const char* message : {"a", "b", "c", "d", "e"}) Append(message);
  EXPECT_EQ(Read(0), (std::vector<std::string>{"3 c", "4 d", "5 e"}));
  EXPECT_EQ(Read(2, 1), (std::vector<std::string>{"3 c"}));
}

TEST_F(EventLogTest, ASubscriberMayReadTheEventThatWokeIt) {
  std::vector<std::string> seen;
  const auto subscription = log_.changes().Subscribe([&] { seen = Read(0); });
  Append("a");
  EXPECT_EQ(seen, std::vector<std::string>{"1 a"});
}

TEST_F(EventLogTest, ThreadsAppendWithoutGaps) {
  constexpr size_t kThreads = 4, kEach = 500;
  EventLog log(clock_, kThreads * kEach);
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (size_t i = 0; i < kEach; ++i) log.Append({.kind = EventKind::kServing});
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::vector<Event> events = log.Read(0, SIZE_MAX);
  ASSERT_EQ(events.size(), kThreads * kEach);
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].sequence, i + 1);
}

TEST(ChangeSignal, WakesEverySubscriberUntilItsSubscriptionEnds) {
  ChangeSignal signal;
  int first = 0, second = 0;
  const auto lasting = signal.Subscribe([&] { ++first; });
  {
    const auto ending = signal.Subscribe([&] { ++second; });
    signal.Notify();
  }
  signal.Notify();
  EXPECT_EQ(first, 2);
  EXPECT_EQ(second, 1);
}

TEST(ChangeSignal, ASubscriptionMovesWithItsOwner) {
  ChangeSignal signal;
  int calls = 0;
  ChangeSignal::Subscription kept;
  {
    auto moved = signal.Subscribe([&] { ++calls; });
    kept = std::move(moved);
  }
  signal.Notify();
  EXPECT_EQ(calls, 1);
  kept = ChangeSignal::Subscription();
  signal.Notify();
  EXPECT_EQ(calls, 1);
}

TEST(ChangeSignal, NothingIsCalledAfterASubscriptionHasEndedOnAnotherThread) {
  ChangeSignal signal;
  std::atomic<bool> done = false;
  std::thread notifier([&] {
    while (!done) signal.Notify();
  });
  for (int i = 0; i < 1000; ++i) {
    auto calls = std::make_unique<int>(0);  // freed while the notifier runs
    const auto subscription = signal.Subscribe([&calls] { ++*calls; });
  }
  done = true;
  notifier.join();
}

TEST_F(EventLogTest, CountsEventsByKindThoughItForgetsThem) {
  for (int i = 0; i < 5; ++i) Append("serves");
  log_.Append({.kind = EventKind::kWorkerLost, .message = "lost"});
  const auto count = [&](EventKind kind) {
    return log_.counters().events[static_cast<size_t>(kind)].value();
  };
  EXPECT_EQ(count(EventKind::kServing), 5u);
  EXPECT_EQ(count(EventKind::kWorkerLost), 1u);
  EXPECT_EQ(count(EventKind::kResized), 0u);
}

}  // namespace
}  // namespace muster
