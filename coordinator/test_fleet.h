// A coordinator whose workers, clock and calls are a test's own.
#ifndef MUSTER_COORDINATOR_TEST_FLEET_H_
#define MUSTER_COORDINATOR_TEST_FLEET_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "coordinator/coordinator.h"
#include "coordinator/fake_worker_client.h"
#include "coordinator/test_workers.h"

namespace muster {

// One thread only. Nothing happens but by its calls.
class TestFleet {
 public:
  explicit TestFleet(const ParallelConfig& config, bool replica_per_domain = false);

  // Members, a new process each time; EnlistAll: w0, w1, ...
  void Enlist(const std::string& id);
  void EnlistAll(int count);
  void Enlist(WorkerInfo worker);
  // Its connection breaks.
  void Lose(const std::string& id);
  // With `progress` of its own and what it says of its epochs.
  void Heartbeat(const std::string& id, uint64_t progress, std::vector<EpochReport> epochs = {});
  void ReportExpiry(const std::string& id, const ExpiryReport& expiry);
  // It was asked to end, and says so.
  void Leave(const std::string& id, absl::Duration time_left = absl::Seconds(30));
  // The leaders that were asked to drain have; the ids of them.
  std::vector<std::string> FinishDrains(const absl::StatusOr<int>& sequences);
  // What the newest process under this id was told.
  const RecordingHolder& holder(const std::string& id) const { return *members_.at(id).holder; }

  // Moves the clock in steps of `step`, with a heartbeat of all members but those in `frozen`.
  void Advance(absl::Duration by, absl::Duration step = absl::Milliseconds(500),
               const std::vector<std::string>& frozen = {});

  // Ends the calls of a phase that are under way: all well (returning how many), or one worker's as
  // told.
  int FinishPhase(FormingPhase phase);
  void FinishRank(FormingPhase phase, const std::string& id, absl::StatusOr<PhaseResult> result);
  void ReportProgress(FormingPhase phase, const std::string& id, const Progress& progress);
  // Ends all phases before `phase` well; those of `phase` are then under way.
  void FormUntil(FormingPhase phase);
  // Ends all phases. When a replica changes its shape, they are those of its new epoch.
  void Serve();
  // Ends all releases; the ids of the workers that were asked, in order.
  std::vector<std::string> Release();

  // Asks for an operation; empty until it has begun or was refused.
  using Answer = std::shared_ptr<std::optional<absl::Status>>;
  Answer Operate(const OperationRequest& request);
  Answer Scale(int cp, const std::string& id = "op1");
  // The leaders that were asked say this of their caches; how many there were.
  int DescribeCaches(const absl::StatusOr<CacheSummary>& summary = TestCache());
  // Scale and DescribeCaches: the new epoch's Assign is then under way.
  void StartScale(int cp, const std::string& id = "op1");
  Operation operation(const std::string& id = "op1");
  ReplicaResize resize(size_t index = 0) { return operation().replicas.at(index); }

  // Room for 100 blocks on each rank, and sequences that hold some.
  static CacheSummary TestCache();

  ReplicaStatus replica(int index = 0);
  ReplicaState state(int index = 0) { return replica(index).state; }
  uint64_t epoch(int index = 0) { return replica(index).topology->epoch.value(); }
  // Worker ids by rank, "w0 w1".
  std::string workers(int index = 0);
  // Those of one kind.
  std::vector<Event> events(EventKind kind);

  FakeWorkerClient::PhaseCall TakeCall(FormingPhase phase, const std::string& id);

  FakeClock& clock() { return clock_; }
  FakeWorkerClient& client() { return client_; }
  Coordinator& coordinator() { return coordinator_; }

 private:
  struct Member {
    WorkerInfo worker;
    LeaseId lease;
    std::shared_ptr<RecordingHolder> holder;
    uint64_t progress = 0;
  };

  void TakeCalls();

  FakeClock clock_;
  FakeWorkerClient client_;
  Coordinator coordinator_;
  uint64_t last_incarnation_ = 0;
  std::map<std::string, Member> members_;
  std::vector<FakeWorkerClient::PhaseCall> calls_;  // under way
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_TEST_FLEET_H_
