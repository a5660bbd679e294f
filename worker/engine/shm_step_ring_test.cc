#include "worker/engine/shm_step_ring.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

class ShmStepRingTest : public ::testing::Test {
 protected:
  Ledger ledger_;
  CpuDevice device_{CpuDeviceOptions{}};
  ShmStepRingBackend backend_{device_};
};

TEST_F(ShmStepRingTest, CarriesMessagesThroughASegmentAndChargesIt) {
  {
    ASSERT_OK_AND_ASSIGN(auto leader,
                         backend_.Create({.followers = 2, .message_bytes = 100}, ledger_));
    ASSERT_OK_AND_ASSIGN(auto first, backend_.Open(leader->Handle(), 0));
    ASSERT_OK_AND_ASSIGN(auto second, backend_.Open(leader->Handle(), 1));
    leader->StopExporting();
    EXPECT_EQ(ledger_.Entries().at(0).tag, "relay");
    ASSERT_OK(leader->Push("one", absl::Seconds(30)));
    ASSERT_OK(leader->Push("two", absl::Seconds(30)));
    for (StepRing* follower : {first.get(), second.get()}) {
      std::string bytes;
      ASSERT_OK(follower->Pop(bytes));
      EXPECT_EQ(bytes, "one");
      ASSERT_OK(follower->Pop(bytes));
      EXPECT_EQ(bytes, "two");
    }
  }
  EXPECT_EQ(ledger_.total(), 0u);
}

TEST_F(ShmStepRingTest, AnEndThatLeavesFailsTheOthers) {
  ASSERT_OK_AND_ASSIGN(auto leader,
                       backend_.Create({.followers = 2, .message_bytes = 100}, ledger_));
  ASSERT_OK_AND_ASSIGN(auto first, backend_.Open(leader->Handle(), 0));
  ASSERT_OK_AND_ASSIGN(auto second, backend_.Open(leader->Handle(), 1));
  second.reset();
  std::string bytes;
  EXPECT_STATUS(first->Pop(bytes), absl::StatusCode::kUnavailable, "follower 1 left");
  EXPECT_STATUS(leader->Push("x", absl::Seconds(30)), absl::StatusCode::kUnavailable,
                "follower 1 left");
}

TEST_F(ShmStepRingTest, NobodyOpensItOnceAllHave) {
  ASSERT_OK_AND_ASSIGN(auto leader,
                       backend_.Create({.followers = 1, .message_bytes = 100}, ledger_));
  leader->StopExporting();
  EXPECT_STATUS(backend_.Open(leader->Handle(), 0), absl::StatusCode::kInvalidArgument, "");
  EXPECT_STATUS(backend_.Open("nonsense", 0), absl::StatusCode::kInvalidArgument, "");
}

TEST_F(ShmStepRingTest, RefusesMoreFollowersThanItHasCursorsFor) {
  EXPECT_STATUS(backend_.Create({.followers = 16, .message_bytes = 100}, ledger_),
                absl::StatusCode::kInvalidArgument, "16 followers; it serves 1 to 15");
}

}  // namespace
}  // namespace muster
