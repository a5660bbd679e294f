#ifndef MUSTER_WORKER_COLLECTIVE_SHM_SHM_BACKEND_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_SHM_BACKEND_H_

#include <memory>
#include <optional>

#include "absl/time/time.h"
#include "base/logging.h"
#include "base/metrics/counters.h"
#include "worker/collective/collective_backend.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster {

// Collectives of ranks that share a host's memory, be they processes or threads of one. Groups of 1
// to 16 ranks, else INVALID_ARGUMENT; a group of one needs no shared memory. `device` outlives it
// and its endpoints, and made the streams that they enqueue on.
class ShmBackend final : public CollectiveBackend {
 public:
  struct Options {
    absl::Duration wait_timeout = absl::Seconds(10);  // of one collective
    Logger log;  // where a failed collective leaves its flight recorder
  };

  ShmBackend(CpuDevice& device, const Options& options) : device_(device), options_(options) {}

  absl::StatusOr<std::unique_ptr<CollectiveEndpoint>> Allocate(const Group& group,
                                                               const WorkspacePlan& plan,
                                                               Ledger& ledger) override;
  std::optional<absl::Duration> waited() const override {
    return absl::Nanoseconds(waited_ns_.value());
  }

 private:
  CpuDevice& device_;
  const Options options_;
  Counter waited_ns_;  // of all endpoints, which it outlives
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_SHM_BACKEND_H_
