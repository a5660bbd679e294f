#include "base/error.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "proto/muster/v1/error.pb.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kUnavailable = absl::StatusCode::kUnavailable;

ErrorDetail Example() {
  return {.reason = ErrorReason::kRankLost,
          .epoch = Epoch(18),
          .ranks = {GlobalRank(3), GlobalRank(1)},
          .workers = {"gpu-3", "gpu-1"},
          .phase = "warmup/exchange",
          .retriable = true,
          .kv_written = true};
}

void ExpectEqual(const ErrorDetail& got, const ErrorDetail& wanted) {
  EXPECT_EQ(got.reason, wanted.reason);
  EXPECT_EQ(got.epoch, wanted.epoch);
  EXPECT_EQ(got.ranks, wanted.ranks);
  EXPECT_EQ(got.workers, wanted.workers);
  EXPECT_EQ(got.phase, wanted.phase);
  EXPECT_EQ(got.retriable, wanted.retriable);
  EXPECT_EQ(got.kv_written, wanted.kv_written);
}

TEST(MakeError, KeepsCodeMessageAndDetail) {
  const absl::Status status = MakeError(kUnavailable, "2 ranks are lost", Example());
  EXPECT_EQ(status.code(), kUnavailable);
  EXPECT_EQ(status.message(), "2 ranks are lost");
  ExpectEqual(DetailOf(status), Example());
}

TEST(MakeError, NamesTheFirstEightCulprits) {
  ErrorDetail detail;
  for (int i = 0; i < 1000; ++i) {
    detail.ranks.emplace_back(i);
    detail.workers.push_back(absl::StrCat("w", i));
  }
  const ErrorDetail kept = DetailOf(MakeError(kUnavailable, "lost", detail));
  ASSERT_EQ(kept.ranks.size(), 8u);
  ASSERT_EQ(kept.workers.size(), 8u);
  EXPECT_EQ(kept.ranks[7], GlobalRank(7));
  EXPECT_EQ(kept.workers[7], "w7");
}

TEST(DetailOf, AStatusWithoutOneHasTheDefault) {
  ExpectEqual(DetailOf(absl::UnavailableError("no detail")), ErrorDetail());
  ExpectEqual(DetailOf(absl::OkStatus()), ErrorDetail());
}

TEST(DetailOf, APayloadThatIsNoDetailIsNone) {
  absl::Status status = MakeError(kUnavailable, "lost", Example());
  status.ForEachPayload([&](absl::string_view url, const absl::Cord&) {
    absl::Status broken(kUnavailable, "lost");
    broken.SetPayload(url, absl::Cord("\xff\xff\xff"));
    ExpectEqual(DetailOf(broken), ErrorDetail());
  });
}

TEST(Annotate, PutsWordsBeforeTheMessageAndKeepsTheRest) {
  const absl::Status status = Annotate(MakeError(kUnavailable, "it is lost", Example()), "rank 3");
  EXPECT_EQ(status.code(), kUnavailable);
  EXPECT_EQ(status.message(), "rank 3: it is lost");
  ExpectEqual(DetailOf(status), Example());
}

TEST(Annotate, KeepsOtherPayloads) {
  absl::Status status = absl::UnavailableError("x");
  status.SetPayload("somebody.else", absl::Cord("theirs"));
  EXPECT_EQ(Annotate(status, "rank 3").GetPayload("somebody.else"), absl::Cord("theirs"));
}

TEST(Annotate, LeavesOkAlone) { EXPECT_OK(Annotate(absl::OkStatus(), "rank 3")); }

TEST(ErrorReason, MirrorsTheMessageValueByValue) {
  EXPECT_EQ(static_cast<int>(ErrorReason::kWorkerDrained), v1::ErrorReason_MAX);
  EXPECT_EQ(static_cast<int>(ErrorReason::kNotLeader), v1::ERROR_REASON_NOT_LEADER);
  EXPECT_EQ(static_cast<int>(ErrorReason::kSequenceExists), v1::ERROR_REASON_SEQUENCE_EXISTS);
  EXPECT_EQ(static_cast<int>(ErrorReason::kRequestIdReused), v1::ERROR_REASON_REQUEST_ID_REUSED);
  EXPECT_EQ(static_cast<int>(ErrorReason::kQueueFull), v1::ERROR_REASON_QUEUE_FULL);
  EXPECT_EQ(static_cast<int>(ErrorReason::kGivenUp), v1::ERROR_REASON_GIVEN_UP);
  EXPECT_EQ(static_cast<int>(ErrorReason::kInvalidRequest), v1::ERROR_REASON_INVALID_REQUEST);
  EXPECT_EQ(static_cast<int>(ErrorReason::kPlanRefused), v1::ERROR_REASON_PLAN_REFUSED);
  EXPECT_EQ(static_cast<int>(ErrorReason::kNotEnoughWorkers), v1::ERROR_REASON_NOT_ENOUGH_WORKERS);
  EXPECT_EQ(static_cast<int>(ErrorReason::kModelUnusable), v1::ERROR_REASON_MODEL_UNUSABLE);
  EXPECT_EQ(static_cast<int>(ErrorReason::kStaleEpoch), v1::ERROR_REASON_STALE_EPOCH);
  EXPECT_EQ(static_cast<int>(ErrorReason::kWrongState), v1::ERROR_REASON_WRONG_STATE);
  EXPECT_EQ(static_cast<int>(ErrorReason::kRankMissing), v1::ERROR_REASON_RANK_MISSING);
  EXPECT_EQ(static_cast<int>(ErrorReason::kRankLost), v1::ERROR_REASON_RANK_LOST);
  EXPECT_EQ(static_cast<int>(ErrorReason::kRankFailed), v1::ERROR_REASON_RANK_FAILED);
  EXPECT_EQ(static_cast<int>(ErrorReason::kDisagreement), v1::ERROR_REASON_DISAGREEMENT);
  EXPECT_EQ(static_cast<int>(ErrorReason::kOutOfMemory), v1::ERROR_REASON_OUT_OF_MEMORY);
  EXPECT_EQ(static_cast<int>(ErrorReason::kKvCapacity), v1::ERROR_REASON_KV_CAPACITY);
  EXPECT_EQ(static_cast<int>(ErrorReason::kContextExceeded), v1::ERROR_REASON_CONTEXT_EXCEEDED);
  EXPECT_EQ(static_cast<int>(ErrorReason::kUnknownSequence), v1::ERROR_REASON_UNKNOWN_SEQUENCE);
}

}  // namespace
}  // namespace muster
