// Workers and a model for the coordinator's tests.
#ifndef MUSTER_COORDINATOR_TEST_WORKERS_H_
#define MUSTER_COORDINATOR_TEST_WORKERS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/topology.h"
#include "coordinator/membership.h"

namespace muster {

// 12 heads of 8, of which 4 hold keys and values.
inline ModelSpec TestModel() {
  return {.architecture = "LlamaForCausalLM",
          .name = "llama-test",
          .layers = 2,
          .hidden = 96,
          .heads = 12,
          .kv_heads = 4,
          .head_dim = 8,
          .ffn = 200,
          .vocabulary = 101,
          .max_positions = 512,
          .dtype = "float32",
          .digest = "00000000000000aa",
          .weight_bytes = 4 * (2 * 858 * 96 + 2 * 101 * 96 + 96)};
}

inline WorkerInfo TestWorker(const std::string& id, uint64_t incarnation) {
  return {.worker_id = id,
          .incarnation = Incarnation(incarnation),
          .address = absl::StrCat("127.0.0.1:", 7000 + incarnation),
          .device = {.kind = "cpu", .name = "test", .threads = 1},
          .model = TestModel(),
          .build = "test"};
}

// Remembers what it was told. Thread-safe.
class RecordingHolder : public LeaseHolder {
 public:
  void OnEpochAborted(const AbortNotice& notice) override {
    absl::MutexLock lock(&mu_);
    notices_.push_back(notice);
  }
  void OnMayLeave(const std::string& message) override {
    absl::MutexLock lock(&mu_);
    farewells_.push_back(message);
  }
  void OnLeaseEnded(const absl::Status& reason) override {
    absl::MutexLock lock(&mu_);
    ends_.push_back(reason);
  }

  std::vector<AbortNotice> notices() const {
    absl::MutexLock lock(&mu_);
    return notices_;
  }
  std::vector<std::string> farewells() const {
    absl::MutexLock lock(&mu_);
    return farewells_;
  }
  std::vector<absl::Status> ends() const {
    absl::MutexLock lock(&mu_);
    return ends_;
  }

 private:
  mutable absl::Mutex mu_;
  std::vector<AbortNotice> notices_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> farewells_ ABSL_GUARDED_BY(mu_);
  std::vector<absl::Status> ends_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_TEST_WORKERS_H_
