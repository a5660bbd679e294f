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

TEST(HealthReporter, BeginsNotServing) {
  RecordingHealth health;
  HealthReporter reporter;
  reporter.Attach(&health);
  EXPECT_EQ(health.Of(""), 0);
  EXPECT_EQ(health.Of("muster.v1.Inference"), 0);
}

TEST(HealthReporter, ServesWhileAnyEpochIsActive) {
  RecordingHealth health;
  HealthReporter reporter;
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
  HealthReporter reporter;
  reporter.Attach(&health);
  reporter.EpochActivated(ReplicaIndex(0), Epoch(2));
  reporter.EpochEnded(ReplicaIndex(1), Epoch(2));
  EXPECT_EQ(health.Of(""), 1);
}

TEST(HealthReporter, TellsAServiceThatComesLaterWhatIsSo) {
  HealthReporter reporter;
  reporter.Attach(nullptr);
  reporter.EpochActivated(ReplicaIndex(0), Epoch(1));
  RecordingHealth health;
  reporter.Attach(&health);
  EXPECT_EQ(health.Of("muster.v1.Inference"), 1);
}

}  // namespace
}  // namespace muster
