#include "coordinator/membership.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "coordinator/test_workers.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr absl::Duration kLease = absl::Milliseconds(1500);

// Writes down what it hears, "+w0" and "-w0: why".
class RecordingListener : public MembershipListener {
 public:
  void OnEnlisted(const WorkerInfo& worker) override { Add(absl::StrCat("+", worker.worker_id)); }
  void OnLost(const WorkerInfo& worker, const absl::Status& reason) override {
    EXPECT_EQ(DetailOf(reason).reason, ErrorReason::kRankLost);
    Add(absl::StrCat("-", worker.worker_id, ": ", reason.message()));
  }
  void OnClientExpired(const WorkerInfo& worker, const ExpiryReport& expiry) override {
    Add(absl::StrCat(worker.worker_id, ": ", DescribeExpiry(expiry)));
  }
  void OnLeaving(const WorkerInfo& worker, absl::Duration time_left) override {
    Add(absl::StrCat(worker.worker_id, " leaves in ", absl::FormatDuration(time_left)));
  }

  std::vector<std::string> heard() const {
    absl::MutexLock lock(&mu_);
    return heard_;
  }

 private:
  void Add(std::string text) {
    absl::MutexLock lock(&mu_);
    heard_.push_back(std::move(text));
  }

  mutable absl::Mutex mu_;
  std::vector<std::string> heard_ ABSL_GUARDED_BY(mu_);
};

class MembershipTest : public ::testing::Test {
 protected:
  absl::StatusOr<LeaseId> Enlist(const std::string& id, uint64_t incarnation) {
    holder_ = std::make_shared<RecordingHolder>();
    return membership_.Enlist(TestWorker(id, incarnation), holder_);
  }

  FakeClock clock_;
  RecordingListener listener_;
  Membership membership_{{.lease = kLease}, clock_, &listener_};
  std::shared_ptr<RecordingHolder> holder_;  // of the newest
};

TEST_F(MembershipTest, AWorkerIsAMemberFromItsEnlistmentOn) {
  ASSERT_OK(Enlist("w0", 1));
  const auto view = membership_.Find("w0");
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(view->info.incarnation, Incarnation(1));
  EXPECT_EQ(view->last_heartbeat, clock_.Now());
  EXPECT_EQ(listener_.heard(), std::vector<std::string>{"+w0"});
  EXPECT_FALSE(membership_.Find("w1").has_value());
}

TEST_F(MembershipTest, AWorkerSaysThatItLeavesAndIsLetGo) {
  ASSERT_OK_AND_ASSIGN(const LeaseId lease, Enlist("w0", 1));
  membership_.ReportLeaving(lease, absl::Seconds(30));
  EXPECT_EQ(listener_.heard(), (std::vector<std::string>{"+w0", "w0 leaves in 30s"}));
  membership_.LetGo("w0", Incarnation(2), "of another process");
  membership_.LetGo("w1", Incarnation(1), "of nobody");
  membership_.LetGo("w0", Incarnation(1), "its rank moved to w2");
  EXPECT_EQ(holder_->farewells(), std::vector<std::string>{"its rank moved to w2"});
  membership_.EndLease(lease, "its connection broke");
  membership_.ReportLeaving(lease, absl::Seconds(29));
  EXPECT_EQ(listener_.heard().size(), 3u) << "a lease that is over";
}

TEST_F(MembershipTest, ClientsThatExpiredAreToldOfInTheirOrder) {
  ASSERT_OK_AND_ASSIGN(const LeaseId lease, Enlist("w0", 1));
  membership_.ReportExpiries(lease, {{.client_id = "a", .lease = absl::Seconds(1)},
                                     {.client_id = "b", .lease = absl::Seconds(1)}});
  EXPECT_EQ(
      listener_.heard(),
      (std::vector<std::string>{
          "+w0", "w0: client 'a' was silent for 1 s: 0 sequences and 0 KV blocks were given back",
          "w0: client 'b' was silent for 1 s: 0 sequences and 0 KV blocks were given back"}));
}

TEST_F(MembershipTest, NobodyHearsOfClientsOfAWorkerWhoseLeaseIsOver) {
  ASSERT_OK_AND_ASSIGN(const LeaseId lease, Enlist("w0", 1));
  membership_.EndLease(lease, "its connection broke");
  membership_.ReportExpiries(lease, {{.client_id = "a"}});
  EXPECT_EQ(listener_.heard().back(), "-w0: its connection broke");
}

TEST(DescribeExpiry, SaysWhoWasSilentAndWhatItLost) {
  EXPECT_EQ(
      DescribeExpiry(
          {.client_id = "bench-7", .lease = absl::Minutes(10), .sequences = 3, .kv_blocks = 12}),
      "client 'bench-7' was silent for 10 min: 3 sequences and 12 KV blocks were given back");
  EXPECT_EQ(DescribeExpiry(
                {.client_id = "a", .lease = absl::Seconds(90), .sequences = 1, .kv_blocks = 1}),
            "client 'a' was silent for 1 min 30 s: 1 sequence and 1 KV block were given back");
  EXPECT_EQ(
      DescribeExpiry({.client_id = "two\nlines\x1b",
                      .lease = absl::Hours(24),
                      .sequences = 1024,
                      .kv_blocks = 1'234'567}),
      "client 'two\\nlines\\x1b' was silent for 24 h: 1,024 sequences and 1,234,567 KV blocks "
      "were given back");
}

TEST_F(MembershipTest, SilenceLongerThanTheLeaseEndsIt) {
  ASSERT_OK(Enlist("w0", 1));
  clock_.Advance(kLease);
  membership_.Tick();
  EXPECT_TRUE(membership_.Find("w0").has_value());
  clock_.Advance(absl::Milliseconds(1));
  membership_.Tick();
  EXPECT_FALSE(membership_.Find("w0").has_value());
  EXPECT_EQ(listener_.heard().back(), "-w0: it sent no heartbeat for 1.501s");
  ASSERT_EQ(holder_->ends().size(), 1u);
  EXPECT_STATUS(holder_->ends()[0], absl::StatusCode::kUnavailable, "no heartbeat");
}

TEST_F(MembershipTest, APauseOfTheCoordinatorItselfEndsNoLease) {
  ASSERT_OK(Enlist("w0", 1));
  membership_.Tick();
  clock_.Advance(absl::Seconds(30));
  membership_.Tick();
  EXPECT_TRUE(membership_.Find("w0").has_value()) << "its heartbeats could not be heard";
  for (int i = 0; i < 4; ++i) {
    clock_.Advance(absl::Milliseconds(500));
    membership_.Tick();
  }
  EXPECT_FALSE(membership_.Find("w0").has_value()) << "from then on it was silent";
}

TEST_F(MembershipTest, HeartbeatsKeepTheLeaseWhateverTheProgress) {
  ASSERT_OK_AND_ASSIGN(const LeaseId lease, Enlist("w0", 1));
  for (int i = 0; i < 10; ++i) {
    clock_.Advance(kLease);
    membership_.Heartbeat(lease, 0, {});
    membership_.Tick();
  }
  const auto view = membership_.Find("w0");
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(view->last_progress, clock_.Now() - 10 * kLease);
}

TEST_F(MembershipTest, ProgressIsDatedWhenItGrowsOrACallReportsIt) {
  ASSERT_OK_AND_ASSIGN(const LeaseId lease, Enlist("w0", 1));
  clock_.Advance(absl::Seconds(1));
  membership_.Heartbeat(lease, 1, {});
  EXPECT_EQ(membership_.Find("w0")->last_progress, clock_.Now());
  clock_.Advance(absl::Seconds(1));
  membership_.ReportProgress("w0", ReplicaIndex(0), Epoch(2), {.phase = "load", .done = 5});
  const auto view = membership_.Find("w0");
  EXPECT_EQ(view->last_progress, clock_.Now());
  ASSERT_EQ(view->epochs.size(), 1u);
  EXPECT_EQ(view->epochs[0].progress.done, 5u);
  membership_.ReportProgress("w9", ReplicaIndex(0), Epoch(2), {});
}

TEST_F(MembershipTest, ABrokenConnectionEndsTheLeaseAtOnceAndOnce) {
  ASSERT_OK_AND_ASSIGN(const LeaseId lease, Enlist("w0", 1));
  membership_.EndLease(lease, "its connection broke");
  membership_.EndLease(lease, "its connection broke");
  EXPECT_EQ(listener_.heard(), (std::vector<std::string>{"+w0", "-w0: its connection broke"}));
  EXPECT_EQ(holder_->ends().size(), 1u);
}

TEST_F(MembershipTest, AnotherProcessUnderALiveNameIsRefused) {
  ASSERT_OK(Enlist("w0", 1));
  EXPECT_STATUS(Enlist("w0", 2), absl::StatusCode::kAlreadyExists, "a worker named w0 is enlisted");
  EXPECT_EQ(membership_.Find("w0")->info.incarnation, Incarnation(1));
}

TEST_F(MembershipTest, ARestartedWorkerEnlistsUnderItsNameOnceTheOldOneIsLost) {
  ASSERT_OK_AND_ASSIGN(const LeaseId old, Enlist("w0", 1));
  membership_.EndLease(old, "its connection broke");
  ASSERT_OK(Enlist("w0", 2));
  membership_.Heartbeat(old, 9, {});
  EXPECT_EQ(membership_.Find("w0")->progress, 0u);
  EXPECT_EQ(membership_.Find("w0")->info.incarnation, Incarnation(2));
}

TEST_F(MembershipTest, TheSameProcessOnANewConnectionLosesItsOldLeaseFirst) {
  ASSERT_OK_AND_ASSIGN(const LeaseId old, Enlist("w0", 1));
  const auto old_holder = holder_;
  ASSERT_OK_AND_ASSIGN(const LeaseId lease, Enlist("w0", 1));
  EXPECT_EQ(listener_.heard(),
            (std::vector<std::string>{"+w0", "-w0: it opened another connection", "+w0"}));
  EXPECT_EQ(old_holder->ends().size(), 1u);
  membership_.EndLease(old, "its connection broke");
  EXPECT_TRUE(membership_.Find("w0").has_value());
  EXPECT_NE(old, lease);
}

TEST_F(MembershipTest, AbortNoticesReachTheirProcessOnly) {
  ASSERT_OK(Enlist("w0", 1));
  const AbortNotice notice{ReplicaIndex(0), Epoch(3), absl::AbortedError("rank 1 failed")};
  membership_.Abort("w0", Incarnation(1), notice);
  membership_.Abort("w0", Incarnation(2), notice);
  membership_.Abort("w1", Incarnation(1), notice);
  ASSERT_EQ(holder_->notices().size(), 1u);
  EXPECT_EQ(holder_->notices()[0].epoch, Epoch(3));
  EXPECT_EQ(holder_->notices()[0].reason, notice.reason);
}

TEST_F(MembershipTest, CloseEndsAllLeasesQuietlyAndRefusesNewOnes) {
  ASSERT_OK(Enlist("w0", 1));
  membership_.Close(absl::UnavailableError("the coordinator is stopping"));
  EXPECT_EQ(listener_.heard(), std::vector<std::string>{"+w0"});
  ASSERT_EQ(holder_->ends().size(), 1u);
  EXPECT_STATUS(holder_->ends()[0], absl::StatusCode::kUnavailable, "is stopping");
  EXPECT_STATUS(Enlist("w1", 2), absl::StatusCode::kUnavailable, "is stopping");
  EXPECT_TRUE(membership_.Snapshot().empty());
}

TEST_F(MembershipTest, ManyThreadsComeAndGoAndEveryEnlistmentEndsOnce) {
  constexpr int kThreads = 8, kRounds = 200;
  std::atomic<bool> done = false;
  std::thread ticker([&] {
    while (!done) {
      clock_.Advance(absl::Milliseconds(1));
      membership_.Tick();
      for (const WorkerView& view : membership_.Snapshot()) {
        membership_.Abort(view.info.worker_id, view.info.incarnation, {.epoch = Epoch(1)});
        membership_.ReportProgress(view.info.worker_id, ReplicaIndex(0), Epoch(1), {});
      }
    }
  });
  std::vector<std::thread> workers;
  workers.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    workers.emplace_back([&, t] {
      const std::string id = absl::StrCat("w", t);
      for (int i = 1; i <= kRounds; ++i) {
        auto holder = std::make_shared<RecordingHolder>();
        const auto lease = membership_.Enlist(TestWorker(id, static_cast<uint64_t>(i)), holder);
        ASSERT_OK(lease);
        membership_.Heartbeat(*lease, 1, {});
        membership_.EndLease(*lease, "its connection broke");
        ASSERT_EQ(holder->ends().size(), 1u);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  done = true;
  ticker.join();
  EXPECT_EQ(listener_.heard().size(), 2u * kThreads * kRounds);
  EXPECT_TRUE(membership_.Snapshot().empty());
}

TEST(DescribeProgress, SaysPhaseAndParts) {
  EXPECT_EQ(DescribeProgress({}), "in no phase");
  EXPECT_EQ(DescribeProgress({.phase = "warmup/vote"}), "in warmup/vote");
  EXPECT_EQ(DescribeProgress({.phase = "warmup/open", .done = 3, .total = 7, .unit = "handles"}),
            "in warmup/open, 3 of 7 handles");
}

}  // namespace
}  // namespace muster
