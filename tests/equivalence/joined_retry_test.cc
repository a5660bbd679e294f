// A retry whose caller waits is answered with what its request gives, whatever became of those who
// asked before.
#include <gtest/gtest.h>

#include <memory>
#include <variant>

#include "base/error.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/request_queue.h"

namespace muster {
namespace {

TEST(JoinedRetryTest, ACallerThatGaveUpTakesNobodyWithItWhoJoinedAfterwards) {
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
