#include "worker/service/health_reporter.h"

#include <grpcpp/health_check_service_interface.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace muster {
namespace {

class RecordingHealth : public grpc::HealthCheckServiceInterface {
 public:
  void SetServingStatus(const std::string& service, bool serving) override {
    serving_[service] = serving;
  }
  void SetServingStatus(bool serving) override {
    for (auto& [service, status] : serving_) status = serving;
  }

  // -1 unknown, 0 not serving, 1 serving.
  int Of(const std::string& service) const {
    const auto found = serving_.find(service);
    return found == serving_.end() ? -1 : found->second;
  }

 private:
  std::map<std::string, bool> serving_;
};

constexpr HealthReporter::Options kOptions = {.stall_timeout = absl::Seconds(5),
                                              .startup_timeout = absl::Seconds(60),
                                              .observe_timeout = absl::Seconds(10)};

// A reporter whose only epoch serves, with a clock that stands still.
class ServingReporter : public ::testing::Test {
 protected:
  ServingReporter() {
    reporter_.Attach(&health_);
    reporter_.Enlisted(true);
    reporter_.EpochActivated(ReplicaIndex(0), Epoch(1));
  }

  // The reason of the check of that name, if it fails.
  std::string Failure(const std::string& name) const {
    for (const HealthCheck& check : reporter_.ReadyChecks(false)) {
      if (check.name == name && !check.passes) return check.reason;
    }
    return "";
  }

  FakeClock clock_;
  RecordingHealth health_;
  HealthReporter reporter_{kOptions, clock_};
};

TEST(HealthReporter, BeginsNotServing) {
  RecordingHealth health;
  HealthReporter reporter(kOptions);
  reporter.Attach(&health);
  EXPECT_EQ(health.Of(""), 0);
  EXPECT_EQ(health.Of("muster.v1.Inference"), 0);
}

TEST(HealthReporter, ServesWhileAnyEpochIsActive) {
  RecordingHealth health;
  HealthReporter reporter(kOptions);
  reporter.Attach(&health);
  reporter.EpochActivated(ReplicaIndex(0), Epoch(1));
  EXPECT_EQ(health.Of("muster.v1.Inference"), 1);
  reporter.EpochActivated(ReplicaIndex(0), Epoch(2));
  reporter.EpochEnded(ReplicaIndex(0), Epoch(1));
  EXPECT_EQ(health.Of(""), 1) << "epoch 2 is active";
  reporter.EpochEnded(ReplicaIndex(0), Epoch(2));
  EXPECT_EQ(health.Of(""), 0);
  EXPECT_EQ(health.Of("muster.v1.Inference"), 0);
}

TEST(HealthReporter, EndOfAnEpochThatWasNeverActiveChangesNothing) {
  RecordingHealth health;
  HealthReporter reporter(kOptions);
  reporter.Attach(&health);
  reporter.EpochActivated(ReplicaIndex(0), Epoch(2));
  reporter.EpochEnded(ReplicaIndex(1), Epoch(2));
  EXPECT_EQ(health.Of(""), 1);
}

TEST(HealthReporter, NothingServesOnceTheWorkerDrains) {
  RecordingHealth health;
  HealthReporter reporter(kOptions);
  reporter.Attach(&health);
  reporter.EpochActivated(ReplicaIndex(0), Epoch(1));
  reporter.Draining();
  EXPECT_EQ(health.Of(""), 0);
  EXPECT_EQ(health.Of("muster.v1.Inference"), 0);
  reporter.EpochActivated(ReplicaIndex(0), Epoch(2));
  EXPECT_EQ(health.Of(""), 0) << "it stays so";
}

TEST_F(ServingReporter, StepsThatStandStillWithRequestsInFlightAreAStall) {
  reporter_.Observe({.steps = 7, .requests_in_flight = 2});
  clock_.Advance(absl::Seconds(4));
  reporter_.Observe({.steps = 7, .requests_in_flight = 2});
  EXPECT_EQ(health_.Of("muster.v1.Inference"), 1);
  clock_.Advance(absl::Seconds(1));
  reporter_.Observe({.steps = 7, .requests_in_flight = 2});
  EXPECT_EQ(health_.Of("muster.v1.Inference"), 0);
  EXPECT_EQ(health_.Of(""), 0);
  EXPECT_EQ(Failure("steps"), "2 requests in flight, and a step ended 5 s ago");
  reporter_.Observe({.steps = 8, .requests_in_flight = 2});
  EXPECT_EQ(health_.Of("muster.v1.Inference"), 1) << "a step has ended";
}

TEST_F(ServingReporter, WhoeverAsksIsToldTheSameAsWhoeverWatches) {
  reporter_.Observe({.steps = 7, .requests_in_flight = 2});
  clock_.Advance(absl::Seconds(6));
  EXPECT_EQ(Failure("steps"), "") << "nobody has looked since";
  EXPECT_EQ(health_.Of("muster.v1.Inference"), 1);
  reporter_.Observe({.steps = 7, .requests_in_flight = 2});
  EXPECT_NE(Failure("steps"), "");
  EXPECT_EQ(health_.Of("muster.v1.Inference"), 0);
}

TEST_F(ServingReporter, StepsMayStandStillWhileNothingIsInFlight) {
  for (int i = 0; i < 10; ++i) {
    clock_.Advance(absl::Seconds(4));
    reporter_.Observe({.steps = 7});
  }
  EXPECT_EQ(health_.Of("muster.v1.Inference"), 1);
  reporter_.Observe({.steps = 7, .requests_in_flight = 1});
  EXPECT_EQ(health_.Of("muster.v1.Inference"), 1) << "it has only just come";
}

TEST_F(ServingReporter, AFailedEpochIsNamed) {
  reporter_.Observe({.failed = {"replica 0 epoch 1: rank 1 (worker w1) is lost"}});
  EXPECT_EQ(health_.Of(""), 0);
  EXPECT_EQ(Failure("ranks"), "replica 0 epoch 1: rank 1 (worker w1) is lost");
}

TEST_F(ServingReporter, ADrainIsNamed) {
  reporter_.Draining();
  EXPECT_EQ(Failure("drain"), "this worker is leaving");
}

TEST_F(ServingReporter, ItCanBeControlledWhateverItServes) {
  reporter_.EpochEnded(ReplicaIndex(0), Epoch(1));
  EXPECT_EQ(health_.Of("muster.v1.Inference"), 0);
  EXPECT_EQ(health_.Of("muster.v1.WorkerControl"), 1);
}

TEST_F(ServingReporter, AStandbyIsReadyForWhoeverAsksThatOfIt) {
  reporter_.EpochEnded(ReplicaIndex(0), Epoch(1));
  EXPECT_FALSE(AllPass(reporter_.ReadyChecks(false)));
  EXPECT_EQ(Failure("epoch"), "standby: this worker has no rank");
  EXPECT_TRUE(AllPass(reporter_.ReadyChecks(true)));
  reporter_.Observe({.preparing = {"replica 0 epoch 2: load"}});
  EXPECT_FALSE(AllPass(reporter_.ReadyChecks(true))) << "it is about to be more than that";
  reporter_.Observe({.unformed = "replica 0 epoch 2: no memory"});
  EXPECT_FALSE(AllPass(reporter_.ReadyChecks(true))) << "an upgrade must not go on";
  EXPECT_EQ(Failure("epoch"), "it could not be formed: replica 0 epoch 2: no memory");
  reporter_.Observe({});
  reporter_.Enlisted(false);
  EXPECT_FALSE(AllPass(reporter_.ReadyChecks(true))) << "nobody could give it a rank";
}

TEST_F(ServingReporter, AStartIsOverOnceItHasEnlistedAndWhileWhatItPreparesGetsOn) {
  const std::vector<std::string> load = {"replica 0 epoch 2: load, 1 of 3 bytes"};
  HealthReporter reporter(kOptions, clock_);
  EXPECT_FALSE(AllPass(reporter.StartupChecks()));
  reporter.Enlisted(true);
  EXPECT_TRUE(AllPass(reporter.StartupChecks()));
  for (uint64_t progress = 1; progress < 5; ++progress) {
    reporter.Observe({.progress = progress, .preparing = load});
    clock_.Advance(absl::Seconds(50));
  }
  EXPECT_TRUE(AllPass(reporter.StartupChecks())) << "slow, but it gets on";
  clock_.Advance(absl::Seconds(10));
  EXPECT_FALSE(AllPass(reporter.StartupChecks()));
  EXPECT_EQ(reporter.StartupChecks().back().reason,
            "replica 0 epoch 2: load, 1 of 3 bytes; got on 1 min ago");
}

TEST_F(ServingReporter, WhoeverIsObservedNoMoreIsNotAlive) {
  EXPECT_TRUE(AllPass(reporter_.LiveChecks()));
  clock_.Advance(absl::Seconds(10));
  EXPECT_FALSE(AllPass(reporter_.LiveChecks()));
  reporter_.Observe({});
  EXPECT_TRUE(AllPass(reporter_.LiveChecks()));
}

TEST(HealthReporter, TellsAServiceThatComesLaterWhatIsSo) {
  HealthReporter reporter(kOptions);
  reporter.Attach(nullptr);
  reporter.EpochActivated(ReplicaIndex(0), Epoch(1));
  RecordingHealth health;
  reporter.Attach(&health);
  EXPECT_EQ(health.Of("muster.v1.Inference"), 1);
}

}  // namespace
}  // namespace muster
