#include "worker/engine/relay.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/shm_ring_memory.h"

namespace muster {
namespace {

constexpr size_t kMessageBytes = 4096;

// Rings in the memory of this process, which ThreadSanitizer sees as what it is.
class LocalRing final : public StepRing {
 public:
  explicit LocalRing(ShmRingMemory ring) : ring_(ring) {}

  absl::Status Push(absl::string_view bytes, absl::Duration timeout) override {
    return ring_.Push(bytes, timeout);
  }
  absl::Status AwaitTaken(absl::Duration timeout) override { return ring_.AwaitTaken(timeout); }
  absl::Status Pop(std::string& bytes) override { return ring_.Pop(bytes); }
  void Abort(const absl::Status& reason) override { ring_.Abort(reason); }
  std::string Handle() const override { return ""; }
  void StopExporting() override {}

 private:
  ShmRingMemory ring_;
};

class RelayTest : public ::testing::Test {
 protected:
  void SetUp() override {
    bounds_.limits = {.max_rows = 8, .max_outputs = 4, .max_sequences = 16, .max_local_blocks = 64};
    bounds_.vocabulary = 1000;
    bounds_.max_positions = 1000;
    bounds_.arena_blocks = 32;
  }

  void MakeRings(int followers) {
    leader_ =
        std::make_unique<LocalRing>(ShmRingMemory::Format(memory(), followers, kMessageBytes));
    for (int i = 0; i < followers; ++i) {
      absl::StatusOr<ShmRingMemory> end = ShmRingMemory::Attach(memory(), size(), i);
      ASSERT_OK(end);
      followers_.push_back(std::make_unique<LocalRing>(*end));
    }
  }

  std::byte* memory() { return reinterpret_cast<std::byte*>(memory_.get()); }
  size_t size() const { return ShmRingMemory::BytesFor(kMessageBytes); }

  static Step Decode(int token) {
    Step step;
    step.bucket = 1;
    step.rows = {{.token = token, .position = token, .slot = 0}};
    return step;
  }

  struct Free {
    void operator()(void* data) const { ::operator delete(data, std::align_val_t(4096)); }
  };
  StepBounds bounds_;
  std::unique_ptr<void, Free> memory_{
      std::memset(::operator new(ShmRingMemory::BytesFor(kMessageBytes), std::align_val_t(4096)), 0,
                  ShmRingMemory::BytesFor(kMessageBytes))};
  std::unique_ptr<LocalRing> leader_;
  std::vector<std::unique_ptr<LocalRing>> followers_;
};

TEST_F(RelayTest, EveryFollowerGetsEveryStepInOrder) {
  constexpr int kSteps = 200;
  MakeRings(3);
  std::vector<std::thread> threads;
  for (auto& ring : followers_) {
    threads.emplace_back([this, &ring] {
      RelayReceiver receiver(Epoch(5), GlobalRank(1), *ring);
      Step step;
      for (int i = 0; i < kSteps; ++i) {
        ASSERT_OK(receiver.Receive(bounds_, step));
        EXPECT_EQ(step.number, StepNumber(i + 1));
        EXPECT_EQ(step.rows[0].token, i);
      }
    });
  }
  RelaySender sender(Epoch(5), leader_.get());
  for (int i = 0; i < kSteps; ++i) {
    Step step = Decode(i);
    ASSERT_OK(sender.Send(step, absl::Seconds(30)));
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sender.last(), StepNumber(kSteps));
}

TEST_F(RelayTest, AFullRingNamesTheFollowerThatIsBehind) {
  MakeRings(2);
  RelaySender sender(Epoch(5), leader_.get());
  RelayReceiver quick(Epoch(5), GlobalRank(1), *followers_[0]);
  Step step;
  for (uint64_t i = 0; i < ShmRingMemory::kDepth; ++i) {
    step = Decode(0);
    ASSERT_OK(sender.Send(step, absl::Seconds(30)));
    ASSERT_OK(quick.Receive(bounds_, step));
  }
  step = Decode(0);
  EXPECT_STATUS(sender.Send(step, absl::Milliseconds(1)), absl::StatusCode::kDeadlineExceeded,
                "follower 1 took no step");
  EXPECT_EQ(sender.last(), StepNumber(ShmRingMemory::kDepth));
  // Nothing was pushed, and one place is enough to go on.
  RelayReceiver slow(Epoch(5), GlobalRank(2), *followers_[1]);
  ASSERT_OK(slow.Receive(bounds_, step));
  EXPECT_EQ(step.number, StepNumber(1));
  step = Decode(0);
  EXPECT_OK(sender.Send(step, absl::Seconds(30)));
}

TEST_F(RelayTest, AbortOfAnyEndWakesAllWithTheFirstReason) {
  MakeRings(2);
  std::vector<absl::Status> got(2);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([this, i, &got] {
      std::string bytes;
      got[i] = followers_[i]->Pop(bytes);
    });
  }
  leader_->Abort(MakeError(absl::StatusCode::kUnavailable, "rank 3 (worker w3) died",
                           {.reason = ErrorReason::kRankLost, .ranks = {GlobalRank(3)}}));
  followers_[0]->Abort(absl::InternalError("later"));
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : got) {
    EXPECT_STATUS(status, absl::StatusCode::kUnavailable, "rank 3 (worker w3) died");
    EXPECT_EQ(DetailOf(status).ranks, std::vector<GlobalRank>{GlobalRank(3)});
  }
  EXPECT_STATUS(leader_->Push("x", absl::Seconds(30)), absl::StatusCode::kUnavailable, "rank 3");
}

TEST_F(RelayTest, AbortWakesALeaderThatWaitsForRoom) {
  MakeRings(1);
  for (uint64_t i = 0; i < ShmRingMemory::kDepth; ++i) {
    ASSERT_OK(leader_->Push("x", absl::Seconds(30)));
  }
  std::thread follower([this] { followers_[0]->Abort(absl::CancelledError("enough")); });
  EXPECT_STATUS(leader_->Push("x", absl::Seconds(30)), absl::StatusCode::kCancelled, "enough");
  follower.join();
}

TEST_F(RelayTest, AFollowerRefusesWhatIsNotTheNextStepOfItsEpoch) {
  const auto expect = [this](absl::StatusCode code, const char* what, auto change) {
    MakeRings(1);
    Step step = Decode(1);
    step.epoch = Epoch(5);
    step.number = StepNumber(1);
    change(step);
    std::string bytes;
    EncodeStep(step, bytes);
    ASSERT_OK(leader_->Push(bytes, absl::Seconds(30)));
    RelayReceiver receiver(Epoch(5), GlobalRank(2), *followers_.back());
    const absl::Status status = receiver.Receive(bounds_, step);
    EXPECT_STATUS(status, code, what);
    EXPECT_STATUS(status, code, "rank 2 refuses the stamp after step 0");
    EXPECT_EQ(receiver.last(), StepNumber(0));
    followers_.clear();
  };
  expect(absl::StatusCode::kFailedPrecondition, "of epoch 4, not 5",
         [](Step& s) { s.epoch = Epoch(4); });
  expect(absl::StatusCode::kFailedPrecondition, "number 2",
         [](Step& s) { s.number = StepNumber(2); });
  expect(absl::StatusCode::kInvalidArgument, "in a bucket of 2", [](Step& s) { s.bucket = 2; });
  expect(absl::StatusCode::kInvalidArgument, "token 1000", [](Step& s) { s.rows[0].token = 1000; });
}

TEST_F(RelayTest, AFollowerRefusesBytesThatAreNoStep) {
  MakeRings(1);
  ASSERT_OK(leader_->Push("not a step", absl::Seconds(30)));
  RelayReceiver receiver(Epoch(5), GlobalRank(2), *followers_[0]);
  Step step;
  EXPECT_STATUS(receiver.Receive(bounds_, step), absl::StatusCode::kDataLoss, "10 bytes");
}

TEST_F(RelayTest, RefusesAMessageLongerThanItsSlots) {
  MakeRings(1);
  EXPECT_STATUS(leader_->Push(std::string(kMessageBytes + 1, 'x'), absl::Seconds(30)),
                absl::StatusCode::kInvalidArgument, "4097 bytes; the ring takes 4096");
}

TEST_F(RelayTest, AttachesToNothingButARing) {
  EXPECT_STATUS(ShmRingMemory::Attach(memory(), size(), 0), absl::StatusCode::kDataLoss, "no ring");
  MakeRings(1);
  EXPECT_STATUS(ShmRingMemory::Attach(memory(), size(), 1), absl::StatusCode::kDataLoss, "no ring");
  EXPECT_STATUS(ShmRingMemory::Attach(memory(), size() - 4096, 0), absl::StatusCode::kDataLoss,
                "no ring");
}

TEST_F(RelayTest, ALeaderWithoutFollowersNumbersItsSteps) {
  RelaySender sender(Epoch(5), nullptr);
  Step step = Decode(1);
  ASSERT_OK(sender.Send(step, absl::Seconds(30)));
  EXPECT_EQ(step.epoch, Epoch(5));
  EXPECT_EQ(step.number, StepNumber(1));
}

}  // namespace
}  // namespace muster
