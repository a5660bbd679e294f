#include "tests/conformance/cpu_rank.h"

#include "worker/collective/shm/shm_backend.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster::testing {
namespace {

class CpuRank final : public RankBackend {
 public:
  explicit CpuRank(const RankOptions& options)
      : device_({.ordinal = options.ordinal, .memory_limit = options.memory_limit}),
        collectives_(device_, {.wait_timeout = options.wait_timeout}) {}

  Device& device() override { return device_; }
  CollectiveBackend& collectives() override { return collectives_; }

 private:
  CpuDevice device_;
  ShmBackend collectives_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankBackend>> MakeCpuRank(const RankOptions& options) {
  return std::make_unique<CpuRank>(options);
}

}  // namespace muster::testing
