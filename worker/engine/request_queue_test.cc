#include "worker/engine/request_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

using Code = absl::StatusCode;

ForwardBatch Batch(const std::string& request_id = "", uint32_t token = 1) {
  return {.client_id = "client",
          .slices = {{.sequence_id = "s", .token_ids = {token}}},
          .request_id = request_id};
}

// What came of one call.
struct Outcome {
  int answers = 0;
  ForwardAnswer answer = absl::UnknownError("none yet");
  absl::Status given_up;

  ForwardCall Call() {
    return {.done =
                [this](const ForwardAnswer& it) {
                  ++answers;
                  answer = it;
                },
            .still_wanted = [this] { return given_up; }};
  }
};

class RequestQueueTest : public ::testing::Test {
 protected:
  RequestQueueTest() { queue_.Open(); }

  std::shared_ptr<RequestQueue::Forward> NextForward() {
    auto work = queue_.Next();
    EXPECT_OK(work);
    return std::get<std::shared_ptr<RequestQueue::Forward>>(*work);
  }
  void AnswerNext(uint64_t step) {
    ForwardResult result;
    result.step = StepNumber(step);
    result.outputs.resize(1);
    queue_.Answer(*NextForward(), std::make_shared<const ForwardResult>(result));
  }

  FakeClock clock_;
  RequestQueue queue_{{.epoch = Epoch(7), .max_waiting = 3, .clock = &clock_}};
};

TEST_F(RequestQueueTest, RequestsComeOutInTheirOrder) {
  Outcome first;
  queue_.Push(Batch("", 5), first.Call());
  queue_.Push(FreeOrder{.client_id = "client", .all = true}, [](const absl::StatusOr<int>&) {});
  queue_.Push(ForkOrder{.client_id = "client"}, [](const absl::StatusOr<Forked>&) {});
  EXPECT_EQ(queue_.waiting(), 3);
  EXPECT_EQ(NextForward()->batch.slices[0].token_ids[0], 5u);
  EXPECT_TRUE(std::holds_alternative<RequestQueue::Free>(*queue_.Next()));
  EXPECT_TRUE(std::holds_alternative<RequestQueue::Fork>(*queue_.Next()));
  EXPECT_EQ(first.answers, 0);
}

TEST_F(RequestQueueTest, ARequestIsInFlightUntilTheNextOneIsAskedFor) {
  Outcome first, second;
  queue_.Push(Batch(), first.Call());
  queue_.Push(Batch(), second.Call());
  EXPECT_EQ(queue_.in_flight(), 2);
  const auto running = NextForward();
  EXPECT_EQ(queue_.waiting(), 1);
  EXPECT_EQ(queue_.in_flight(), 2) << "one runs, one waits";
  AnswerNext(1);
  EXPECT_EQ(queue_.waiting(), 0);
}

TEST_F(RequestQueueTest, KnowsHowManyClientsHaveALease) {
  EXPECT_EQ(queue_.clients(), 0);
  queue_.Hold("a");
  queue_.Hold("b");
  queue_.Hold("b");
  EXPECT_EQ(queue_.clients(), 2);
}

TEST_F(RequestQueueTest, ARetryGetsTheRecordedAnswerAndIsNotRunAgain) {
  Outcome first, again;
  queue_.Push(Batch("1"), first.Call());
  AnswerNext(41);
  queue_.Push(Batch("1"), again.Call());
  EXPECT_EQ(queue_.waiting(), 0);
  ASSERT_OK(again.answer);
  EXPECT_EQ(*again.answer, *first.answer);
  EXPECT_EQ(again.answers, 1);
}

TEST_F(RequestQueueTest, ARetryGetsTheAnswerOfAnEpochThatServesNoMore) {
  Outcome first, again, other;
  ForwardBatch batch = Batch("1");
  batch.expected_epoch = Epoch(7);
  queue_.Push(batch, first.Call());
  AnswerNext(41);
  queue_.Serve(Epoch(8));
  queue_.Push(batch, again.Call());
  ASSERT_OK(again.answer);
  EXPECT_EQ(*again.answer, *first.answer);
  batch.request_id = "2";
  queue_.Push(batch, other.Call());
  EXPECT_STATUS(other.answer.status(), Code::kFailedPrecondition, "epoch 7 is not served; epoch 8");
}

TEST_F(RequestQueueTest, ARetryOfWhatIsOnItsWayJoinsIt) {
  Outcome first, waiting, running;
  queue_.Push(Batch("1"), first.Call());
  queue_.Push(Batch("1"), waiting.Call());
  const auto request = NextForward();
  EXPECT_OK(queue_.StillWanted(*request));
  queue_.Push(Batch("1"), running.Call());
  EXPECT_EQ(queue_.waiting(), 0);
  queue_.Answer(*request, std::make_shared<const ForwardResult>());
  EXPECT_EQ(first.answers + waiting.answers + running.answers, 3);
}

TEST_F(RequestQueueTest, ARequestIdWithAnotherBodyIsRefused) {
  Outcome first, during, after;
  queue_.Push(Batch("1", 5), first.Call());
  queue_.Push(Batch("1", 6), during.Call());
  AnswerNext(1);
  queue_.Push(Batch("1", 6), after.Call());
  for (const Outcome& outcome : {during, after}) {
    EXPECT_STATUS(outcome.answer.status(), Code::kInvalidArgument, "request id '1' was used");
    EXPECT_EQ(DetailOf(outcome.answer.status()).reason, ErrorReason::kRequestIdReused);
  }
}

TEST_F(RequestQueueTest, ARefusalIsNotRecorded) {
  Outcome first, again;
  queue_.Push(Batch("1"), first.Call());
  queue_.Answer(*NextForward(), absl::ResourceExhaustedError("full"));
  queue_.Push(Batch("1"), again.Call());
  EXPECT_EQ(queue_.waiting(), 1);
  EXPECT_EQ(again.answers, 0);
}

TEST_F(RequestQueueTest, ARequestIsWantedAsLongAsOneCallerWaits) {
  Outcome first, retry;
  queue_.Push(Batch("1"), first.Call());
  queue_.Push(Batch("1"), retry.Call());
  const auto request = NextForward();
  first.given_up = absl::CancelledError("hung up");
  EXPECT_OK(queue_.StillWanted(*request));
  retry.given_up = absl::DeadlineExceededError("too late");
  EXPECT_STATUS(queue_.StillWanted(*request), Code::kCancelled, "hung up");
}

TEST_F(RequestQueueTest, RefusesStaleEpochsAndMoreThanFit) {
  Outcome stale, last;
  ForwardBatch batch = Batch();
  batch.expected_epoch = Epoch(6);
  queue_.Push(batch, stale.Call());
  EXPECT_STATUS(stale.answer.status(), Code::kFailedPrecondition, "epoch 6 is not served; epoch 7");
  EXPECT_EQ(DetailOf(stale.answer.status()).epoch, Epoch(7));
  Outcome fits[3];
  for (Outcome& outcome : fits) queue_.Push(Batch(), outcome.Call());
  queue_.Push(Batch(), last.Call());
  EXPECT_STATUS(last.answer.status(), Code::kResourceExhausted, "3 requests wait");
  EXPECT_EQ(DetailOf(last.answer.status()).reason, ErrorReason::kQueueFull);
  EXPECT_TRUE(DetailOf(last.answer.status()).retriable);
}

TEST_F(RequestQueueTest, StopAnswersAllAndTheFirstReasonStays) {
  Outcome waiting, retry, late;
  queue_.Push(Batch("1"), waiting.Call());
  queue_.Push(Batch("1"), retry.Call());
  EXPECT_STATUS(queue_.Stop(absl::AbortedError("first")), Code::kAborted, "first");
  EXPECT_STATUS(queue_.Stop(absl::AbortedError("second")), Code::kAborted, "first");
  queue_.Push(Batch(), late.Call());
  for (const Outcome& outcome : {waiting, retry, late}) {
    EXPECT_EQ(outcome.answers, 1);
    EXPECT_STATUS(outcome.answer.status(), Code::kAborted, "first");
  }
  EXPECT_STATUS(queue_.Next().status(), Code::kAborted, "first");
}

TEST_F(RequestQueueTest, DrainWaitsForWhatIsInFlightButAnswersRetries) {
  Outcome first, second, refused, retry;
  queue_.Push(Batch("1"), first.Call());
  AnswerNext(1);
  queue_.Push(Batch("2", 2), second.Call());
  EXPECT_STATUS(queue_.Drain(absl::ZeroDuration()), Code::kDeadlineExceeded,
                "requests are still in flight");
  queue_.Push(Batch("3"), refused.Call());
  EXPECT_STATUS(refused.answer.status(), Code::kUnavailable, "takes no requests now");
  queue_.Push(Batch("1"), retry.Call());
  EXPECT_OK(retry.answer);
  std::thread engine([&] {
    AnswerNext(2);
    EXPECT_FALSE(queue_.Next().ok());
  });
  EXPECT_OK(queue_.Drain(absl::Seconds(30)));
  EXPECT_EQ(second.answers, 1);
  EXPECT_FALSE(queue_.Stop(absl::AbortedError("end")).ok());
  engine.join();
}

TEST_F(RequestQueueTest, SilentClientsExpireAndThoseThatWaitDoNot) {
  Outcome waits;
  queue_.Hold("silent");
  queue_.LetGo("silent");
  queue_.Push(Batch(), waits.Call());
  queue_.Push(ForkOrder{.client_id = "forks"}, [](const absl::StatusOr<Forked>&) {});
  clock_.Advance(absl::Minutes(11));
  const auto work = queue_.Next();
  ASSERT_OK(work);
  EXPECT_EQ(std::get<RequestQueue::Expired>(*work).clients, std::vector<std::string>{"silent"});
  AnswerNext(1);
  queue_.Answer(std::get<RequestQueue::Fork>(*queue_.Next()), Forked{});
  clock_.Advance(absl::Minutes(11));
  auto expired = std::get<RequestQueue::Expired>(*queue_.Next()).clients;
  std::sort(expired.begin(), expired.end());
  EXPECT_EQ(expired, (std::vector<std::string>{"client", "forks"}));
}

TEST_F(RequestQueueTest, AnAnswerHasAnOutputForEverySliceOfItsRequest) {
  // Two bodies of one digest, as somebody could forge them.
  Outcome first, forged;
  queue_.Push(Batch("1"), first.Call());
  ForwardResult result;
  result.outputs.resize(2);
  queue_.Answer(*NextForward(), std::make_shared<const ForwardResult>(result));
  queue_.Push(Batch("1"), forged.Call());
  EXPECT_EQ(DetailOf(forged.answer.status()).reason, ErrorReason::kRequestIdReused);
}

TEST(RequestQueueRetryTest, ACallerThatGaveUpTakesNobodyWithItWhoJoinedAfterwards) {
  RequestQueue queue(RequestQueue::Options{.epoch = Epoch(1)});
  queue.Open();
  const ForwardBatch batch{
      .client_id = "a", .slices = {{.sequence_id = "s", .token_ids = {1}}}, .request_id = "1"};
  const absl::Status gone =
      MakeError(absl::StatusCode::kCancelled, "gone", {.reason = ErrorReason::kGivenUp});
  absl::Status first, retried;
  queue.Push(batch, {.done = [&](const ForwardAnswer& it) { first = it.status(); },
                     .still_wanted = [gone] { return gone; }});
  auto work = queue.Next();
  ASSERT_OK(work);
  const auto request = std::get<std::shared_ptr<RequestQueue::Forward>>(*work);
  // The engine's thread, as it handles a request: it finds that nobody wants it; and before it can
  // say so, its caller is there again over a new connection.
  const absl::Status refused = queue.StillWanted(*request);
  ASSERT_STATUS(refused, absl::StatusCode::kCancelled, "gone");
  queue.Push(batch, {.done = [&](const ForwardAnswer& it) { retried = it.status(); }});
  queue.Answer(*request, refused);
  EXPECT_STATUS(first, absl::StatusCode::kCancelled, "gone");
  // It is still there, wants its answer, and gets it by a step.
  EXPECT_OK(retried);
  EXPECT_EQ(queue.waiting(), 1);
}

}  // namespace
}  // namespace muster
