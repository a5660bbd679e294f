#include "tests/conformance/cuda_rank.h"

#include <utility>

#include "base/status_macros.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster::testing {
namespace {

// Refuses: the device alone is under test.
class NoCollectives final : public CollectiveBackend {
 public:
  absl::StatusOr<std::unique_ptr<CollectiveEndpoint>> Allocate(const Group&, const WorkspacePlan&,
                                                               Ledger&) override {
    return absl::UnimplementedError("collectives of a GPU");
  }
};

class CudaRank final : public RankBackend {
 public:
  explicit CudaRank(std::unique_ptr<CudaDevice> device) : device_(std::move(device)) {}

  Device& device() override { return *device_; }
  CollectiveBackend& collectives() override { return collectives_; }

 private:
  const std::unique_ptr<CudaDevice> device_;
  NoCollectives collectives_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankBackend>> MakeCudaRank(const RankOptions& options) {
  MUSTER_ASSIGN_OR_RETURN(std::unique_ptr<CudaDevice> device,
                          CudaDevice::Create({.ordinal = options.ordinal,
                                              .oversubscribe = true,
                                              .memory_limit = options.memory_limit}));
  return std::make_unique<CudaRank>(std::move(device));
}

}  // namespace muster::testing
