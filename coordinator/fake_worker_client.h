// Workers that do what a test says, when it says so.
#ifndef MUSTER_COORDINATOR_FAKE_WORKER_CLIENT_H_
#define MUSTER_COORDINATOR_FAKE_WORKER_CLIENT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/worker_client.h"

namespace muster {

// Holds every call until the test ends it. Thread-safe.
class FakeWorkerClient : public WorkerClient {
 public:
  struct PhaseCall {
    FormingPhase phase;
    RankTarget target;
    Topology topology;
    PhaseInputs inputs;
    OnProgress on_progress;
    OnPhaseDone done;
  };

  void RunPhase(FormingPhase phase, const RankTarget& target, const Topology& topology,
                const PhaseInputs& inputs, OnProgress on_progress, OnPhaseDone done) override {
    absl::MutexLock lock(&mu_);
    phases_.push_back({phase, target, topology, inputs, std::move(on_progress), std::move(done)});
  }

  void DescribeCache(const RankTarget& target, absl::Duration /*deadline*/,
                     OnDescribed done) override {
    absl::MutexLock lock(&mu_);
    descriptions_.emplace_back(target, std::move(done));
  }

  void Drain(const RankTarget& target, absl::Duration timeout, OnDrained done) override {
    absl::MutexLock lock(&mu_);
    drains_.push_back({target, timeout, std::move(done)});
  }

  void Release(const RankTarget& target, const absl::Status& /*why*/, absl::Duration /*deadline*/,
               OnReleased done) override {
    absl::MutexLock lock(&mu_);
    releases_.emplace_back(target, std::move(done));
  }

  void Forget(const std::string& address, Incarnation /*incarnation*/) override {
    absl::MutexLock lock(&mu_);
    forgotten_.push_back(address);
  }

  // The calls that are under way, which the caller ends from now on.
  std::vector<PhaseCall> TakePhases() {
    absl::MutexLock lock(&mu_);
    return std::exchange(phases_, {});
  }
  std::vector<std::pair<RankTarget, OnDescribed>> TakeDescriptions() {
    absl::MutexLock lock(&mu_);
    return std::exchange(descriptions_, {});
  }
  struct DrainCall {
    RankTarget target;
    absl::Duration timeout;
    OnDrained done;
  };
  std::vector<DrainCall> TakeDrains() {
    absl::MutexLock lock(&mu_);
    return std::exchange(drains_, {});
  }
  std::vector<std::pair<RankTarget, OnReleased>> TakeReleases() {
    absl::MutexLock lock(&mu_);
    return std::exchange(releases_, {});
  }
  // Addresses, in order.
  std::vector<std::string> forgotten() const {
    absl::MutexLock lock(&mu_);
    return forgotten_;
  }

 private:
  mutable absl::Mutex mu_;
  std::vector<PhaseCall> phases_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<RankTarget, OnDescribed>> descriptions_ ABSL_GUARDED_BY(mu_);
  std::vector<DrainCall> drains_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<RankTarget, OnReleased>> releases_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> forgotten_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_FAKE_WORKER_CLIENT_H_
