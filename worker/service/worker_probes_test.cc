#include "worker/service/worker_probes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace muster {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

EpochStatus Held(uint64_t epoch, WorkerState state) {
  return {.report = {.replica = ReplicaIndex(0), .epoch = Epoch(epoch), .state = state}};
}

EpochStatus Failed(uint64_t epoch, const std::string& why) {
  EpochStatus held = Held(epoch, WorkerState::kFailed);
  held.failure = absl::UnavailableError(why);
  return held;
}

TEST(ObserveWork, CountsTheRequestsOfAllEngines) {
  EpochStatus serving = Held(1, WorkerState::kServing);
  serving.requests_in_flight = 3;
  const WorkObservation work = ObserveWork({serving}, 7, 9);
  EXPECT_EQ(work.requests_in_flight, 3);
  EXPECT_EQ(work.steps, 7u);
  EXPECT_EQ(work.progress, 9u);
  EXPECT_THAT(work.failed, IsEmpty());
  EXPECT_THAT(work.preparing, IsEmpty());
}

TEST(ObserveWork, NamesAnEpochThatHasFailed) {
  EXPECT_THAT(ObserveWork({Failed(3, "rank 1 (worker w1) is lost")}, 0, 0).failed,
              ElementsAre("replica 0 epoch 3: rank 1 (worker w1) is lost"));
}

TEST(ObserveWork, AFailureOfWhatWasPreparedDoesNoHarmToWhatServes) {
  const WorkObservation work =
      ObserveWork({Held(3, WorkerState::kServing), Failed(4, "no memory")}, 0, 0);
  EXPECT_THAT(work.failed, IsEmpty());
}

TEST(ObserveWork, SaysHowFarAPhaseIs) {
  EpochStatus loading = Held(4, WorkerState::kAssigned);
  loading.report.progress = {.phase = "load", .done = 1024, .total = 4096, .unit = "bytes"};
  EXPECT_THAT(
      ObserveWork({loading, Held(5, WorkerState::kWarm)}, 0, 0).preparing,
      ElementsAre("replica 0 epoch 4: load, 1,024 of 4,096 bytes", "replica 0 epoch 5: WARM"));
}

TEST(Probes, AnswerWithWhatTheReporterKnows) {
  HealthReporter health(HealthReporter::Options{});
  AdminRoutes routes;
  AddProbes(health, routes);
  EXPECT_EQ(routes["/livez"]({}).status, 200);
  EXPECT_EQ(routes["/startupz"]({}).status, 503);
  EXPECT_EQ(routes["/readyz"]({}).status, 503);
  health.Enlisted(true);
  EXPECT_EQ(routes["/startupz"]({}).status, 200);
  EXPECT_EQ(routes["/readyz"]({}).status, 503);
  EXPECT_EQ(routes["/readyz"]({.query = "standby"}).status, 200);
  health.EpochActivated(ReplicaIndex(0), Epoch(1));
  EXPECT_EQ(routes["/readyz"]({}).status, 200);
  EXPECT_EQ(routes["/readyz"]({.query = "verbose"}).body,
            "[+]epoch: replica 0 epoch 1 serves\n"
            "[+]ranks: no rank is known to have failed\n"
            "[+]steps: no request waits\n"
            "[+]drain: this worker stays\n"
            "readyz check passed\n");
}

}  // namespace
}  // namespace muster
