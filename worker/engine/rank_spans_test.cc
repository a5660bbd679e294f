// What ranks write of their steps, requests and changes of shape while somebody reads.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/worker_epochs_harness.h"

namespace muster {
namespace {

using testing::StartForward;
using testing::TestReplica;

constexpr absl::Duration kPatience = absl::Seconds(20);

class RankSpansTest : public ::testing::Test {
 protected:
  static constexpr int kWorkers = 3;

  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(golden_, ReadGolden("llama-gqa6"));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden_.directory, "float32"));
    replica_ = std::make_unique<TestReplica>(
        kWorkers, model_,
        [this](int rank, EpochContext::Options& options) { options.spans = rings_[rank]; });
    ASSERT_OK(replica_->Serve({.cp = 2}));
    for (const auto& ring : rings_) {
      readers_.push_back(std::make_unique<SpanReader>(ring));
      spans_.emplace_back();
    }
  }

  void Forward(const std::string& request_id, const TraceContext& trace = {},
               const std::vector<uint32_t>& tokens = {1, 2, 3}) {
    absl::Notification done;
    replica_->engine().Forward(
        {.client_id = "test",
         .slices = {{.sequence_id = request_id, .token_ids = tokens, .sample = true}},
         .request_id = request_id,
         .trace = trace},
        {.done = [&](const ForwardAnswer& answer) {
          EXPECT_OK(answer.status());
          done.Notify();
        }});
    done.WaitForNotification();
  }

  // Those of one kind that a rank has written, once there are so many.
  std::vector<Span> Await(int rank, SpanKind kind, size_t count) {
    const absl::Time deadline = absl::Now() + kPatience;
    std::vector<Span> found;
    while (found.size() < count && absl::Now() < deadline) {
      readers_[rank]->Read([&](const Span& span) {
        ids_.push_back(std::make_unique<std::string>(span.request_id));
        Span kept = span;
        kept.request_id = *ids_.back();
        spans_[rank].push_back(kept);
      });
      found.clear();
      std::copy_if(spans_[rank].begin(), spans_[rank].end(), std::back_inserter(found),
                   [kind](const Span& span) { return span.kind == kind; });
      std::this_thread::yield();
    }
    EXPECT_EQ(found.size(), count) << "of rank " << rank;
    return found;
  }

  Golden golden_;
  ModelSource model_;
  const std::vector<std::shared_ptr<SpanRing>> rings_ = {
      std::make_shared<SpanRing>(), std::make_shared<SpanRing>(), std::make_shared<SpanRing>()};
  std::unique_ptr<TestReplica> replica_;
  std::vector<std::unique_ptr<SpanReader>> readers_;
  std::vector<std::vector<Span>> spans_;
  std::vector<std::unique_ptr<std::string>> ids_;
};

TEST_F(RankSpansTest, EveryRankWritesTheSameSteps) {
  for (const char* id : {"a", "b", "c"}) Forward(id);
  const std::vector<Span> leads = Await(0, SpanKind::kStep, 3);
  const std::vector<Span> follows = Await(1, SpanKind::kStep, 3);
  for (size_t i = 0; i < leads.size(); ++i) {
    EXPECT_EQ(leads[i].step, follows[i].step);
    EXPECT_EQ(leads[i].rank, GlobalRank(0));
    EXPECT_EQ(follows[i].rank, GlobalRank(1));
    EXPECT_EQ(follows[i].epoch, replica_->serving());
    EXPECT_LE(leads[i].begin, follows[i].begin + follows[i].duration);
    EXPECT_LE(follows[i].begin, leads[i].begin + leads[i].duration);
  }
}

TEST_F(RankSpansTest, TheStepHoldsItsParts) {
  Forward("a");
  const Span step = Await(0, SpanKind::kStep, 1).at(0);
  for (const SpanKind kind : {SpanKind::kRelay, SpanKind::kDevice, SpanKind::kSampling}) {
    const Span part = Await(0, kind, 1).at(0);
    EXPECT_EQ(part.step, step.step);
    EXPECT_GE(part.begin, step.begin);
    EXPECT_LE(part.begin + part.duration, step.begin + step.duration);
    EXPECT_GT(part.duration, absl::ZeroDuration());
  }
  const Span device = Await(0, SpanKind::kDevice, 1).at(0);
  EXPECT_EQ(device.rows, 3u);
  EXPECT_GE(device.rows_run, 3u);
  EXPECT_GT(device.collectives, 0u);
  EXPECT_GT(device.collective_bytes, 0u);
  ASSERT_TRUE(device.collective_wait.has_value());
  EXPECT_LE(*device.collective_wait, device.duration);
}

TEST_F(RankSpansTest, TheLeaderWritesRequestsWithTheirNames) {
  const TraceContext trace{.trace_high = 1, .trace_low = 2, .parent_span = 3};
  Forward("r-7", trace);
  const Span request = Await(0, SpanKind::kRequest, 1).at(0);
  const Span queue = Await(0, SpanKind::kQueue, 1).at(0);
  const Span step = Await(0, SpanKind::kStep, 1).at(0);
  for (const Span& span : {request, queue}) {
    EXPECT_EQ(span.request_id, "r-7");
    EXPECT_EQ(span.trace, trace);
    EXPECT_EQ(span.step, step.step);
    EXPECT_EQ(span.begin, request.begin);
  }
  EXPECT_LE(queue.begin + queue.duration, step.begin);
  EXPECT_GE(request.begin + request.duration, step.begin + step.duration);
  Await(1, SpanKind::kStep, 1);
  Await(1, SpanKind::kRequest, 0);
}

TEST_F(RankSpansTest, AChangeOfShapeIsAPauseOnAllRanksThatServed) {
  // The block that is being written, the fourth, moves from rank 1 to rank 0 in the pause.
  Forward("a", {}, std::vector<uint32_t>(3 * kKvBlockTokens + 5, 1));
  ASSERT_OK_AND_ASSIGN(const Takeover takeover, replica_->Resize({.cp = 3}));
  const Span leads = Await(0, SpanKind::kPause, 1).at(0);
  const Span follows = Await(1, SpanKind::kPause, 1).at(0);
  EXPECT_GE(leads.duration, takeover.pause);
  EXPECT_LE(leads.begin, follows.begin);
  Await(2, SpanKind::kPause, 0);
  Forward("b");
  EXPECT_EQ(Await(2, SpanKind::kStep, 1).at(0).epoch, replica_->serving());
}

}  // namespace
}  // namespace muster
