#include "worker/service/worker_statusz.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/wire_json.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/worker_epochs_harness.h"

namespace muster {
namespace {

using testing::LocalRendezvousBoard;
using testing::TestWorker;

constexpr Epoch kFirst{1};

class WorkerStatuszTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(golden_, ReadGolden("llama-mha12"));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden_.directory, "float32"));
    worker_.emplace(0, board_, model_);
  }
  void TearDown() override { worker_->epochs().Close(absl::UnavailableError("the test ends")); }

  Json Show() {
    return Json::parse(WorkerStatusz({.role = "worker", .name = "w0", .address = "127.0.0.1:7"},
                                     {.kind = "cpu", .threads = 3}, model_.spec,
                                     worker_->epochs().Statuses(), absl::UnixEpoch()));
  }

  LocalRendezvousBoard board_;
  Golden golden_;
  ModelSource model_;
  std::optional<TestWorker> worker_;
};

TEST_F(WorkerStatuszTest, AStandbyHasADeviceAndAModelAlone) {
  const Json json = Show();
  EXPECT_EQ(json["daemon"]["role"], "worker");
  EXPECT_EQ(json["worker"]["worker_id"], "w0");
  EXPECT_EQ(json["worker"]["device"]["threads"], 3);
  EXPECT_EQ(json["model"]["name"], "llama-mha12");
  EXPECT_TRUE(json["epochs"].empty());
}

TEST_F(WorkerStatuszTest, AServingEpochHasItsGraphsBlocksAndLedger) {
  ASSERT_OK(worker_->Reach(WorkerState::kServing, kFirst));
  const Json json = Show();
  ASSERT_EQ(json["epochs"].size(), 1u);
  const Json& epoch = json["epochs"][0];
  EXPECT_EQ(epoch["state"], "SERVING");
  EXPECT_EQ(epoch["topology"]["epoch"], 1);
  EXPECT_EQ(epoch["topology"]["ranks"][0]["worker_id"], "w0");
  EXPECT_GT(epoch["ledger"]["bytes"]["weights"], 0);
  EXPECT_GT(epoch["ledger"]["buckets"].size(), 0u);
  EXPECT_GT(epoch["ledger"]["block_tokens"], 0);
  EXPECT_GT(epoch["kv_blocks_total"], 0);
  EXPECT_FALSE(epoch.contains("failure"));
}

TEST_F(WorkerStatuszTest, AFailedEpochSaysWhyAndHoldsNothing) {
  ASSERT_OK(worker_->Reach(WorkerState::kServing, kFirst));
  worker_->epochs().Abort(
      testing::kTestReplica, kFirst,
      MakeError(absl::StatusCode::kUnavailable, "rank 1 is gone",
                {.reason = ErrorReason::kRankLost, .ranks = {GlobalRank(1)}, .workers = {"w1"}}));
  const Json epoch = Show()["epochs"][0];
  EXPECT_EQ(epoch["state"], "FAILED");
  EXPECT_EQ(epoch["failure"]["message"], "rank 1 is gone");
  EXPECT_EQ(epoch["failure"]["detail"]["workers"], std::vector<std::string>{"w1"});
}

}  // namespace
}  // namespace muster
