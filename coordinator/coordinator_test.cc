// The whole coordinator under many threads, in real time but by a clock of its own.
#include "coordinator/coordinator.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/fake_worker_client.h"
#include "coordinator/test_workers.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

// Ends every call well, as workers without any fault would.
void EndAllCalls(FakeWorkerClient& client) {
  for (const auto& call : client.TakePhases()) {
    call.on_progress({.phase = FormingPhaseName(call.phase), .done = 1, .total = 2});
    call.done(PhaseResult{.agreement_digest = "ab"});
  }
  for (const auto& [target, done] : client.TakeReleases()) done(absl::OkStatus());
}

TEST(Coordinator, WorkersComeAndGoOnManyThreadsAndInTheEndTheFleetServes) {
  constexpr int kWorkers = 4;
  constexpr uint64_t kLives = 25;
  FakeClock clock;
  FakeWorkerClient client;
  Coordinator coordinator({.membership = {.lease = absl::Hours(1)},
                           .reconfiguration = {.config = {.cp = 2, .replicas = 2},
                                               .replica = {.phase_timeout = absl::Hours(1)}}},
                          clock, client);
  std::atomic<bool> serves = false;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!serves) {
      clock.Advance(absl::Milliseconds(10));
      coordinator.Tick();
      coordinator.fleet().ListWorkers();
    }
  });
  threads.emplace_back([&] {
    while (!serves) EndAllCalls(client);
  });
  std::vector<std::thread> workers;
  workers.reserve(kWorkers);
  for (int w = 0; w < kWorkers; ++w) {
    workers.emplace_back([&, w] {
      for (uint64_t life = 1; life <= kLives; ++life) {
        const WorkerInfo worker =
            TestWorker(absl::StrCat("w", w), life * kWorkers + static_cast<uint64_t>(w));
        const auto lease =
            coordinator.membership().Enlist(worker, std::make_shared<RecordingHolder>());
        ASSERT_OK(lease);
        coordinator.membership().Heartbeat(*lease, life, {});
        if (life < kLives) coordinator.membership().EndLease(*lease, "its connection broke");
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  FleetTopology topology;
  do {
    topology = coordinator.fleet().GetTopology();
    serves = topology.replicas[0].state == ReplicaState::kServing &&
             topology.replicas[1].state == ReplicaState::kServing;
  } while (!serves);
  for (std::thread& thread : threads) thread.join();
  for (const ReplicaStatus& replica : topology.replicas) {
    for (const RankPlacement& rank : replica.topology->ranks) {
      EXPECT_GE(rank.incarnation.value(), kLives * kWorkers) << "a ghost holds a rank";
    }
  }
}

}  // namespace
}  // namespace muster
