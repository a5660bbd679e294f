#include "tests/conformance/nccl_rank.h"

#include <utility>

#include "base/status_macros.h"
#include "worker/collective/nccl/nccl_backend.h"
#include "worker/collective/nccl/nccl_comm.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster::testing {
namespace {

constexpr NcclSettings kSettings = {.oversubscribed = true};

class NcclRank final : public RankBackend {
 public:
  NcclRank(std::unique_ptr<CudaDevice> device, const RankOptions& options)
      : device_(std::move(device)),
        host_({.ordinal = options.ordinal}),
        collectives_(*device_, host_,
                     {.wait_timeout = options.wait_timeout, .settings = kSettings}) {}

  Device& device() override { return *device_; }
  CollectiveBackend& collectives() override { return collectives_; }

 private:
  const std::unique_ptr<CudaDevice> device_;
  CpuDevice host_;
  NcclBackend collectives_;
};

// The library opens files with its first communicator, for good.
absl::Status UseOnce(const CudaDevice& device) {
  MUSTER_ASSIGN_OR_RETURN(const NcclLibrary* nccl, NcclLibrary::Shared(kSettings));
  ncclUniqueId id;
  MUSTER_RETURN_IF_ERROR(nccl->StatusOf(nccl->GetUniqueId(&id), "making an id"));
  NcclComm alone(*nccl, device);
  return alone.Join(id, 1, 0, absl::Seconds(20), [] { return absl::OkStatus(); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankBackend>> MakeNcclRank(const RankOptions& options) {
  MUSTER_ASSIGN_OR_RETURN(std::unique_ptr<CudaDevice> device,
                          CudaDevice::Create({.ordinal = options.ordinal,
                                              .oversubscribe = true,
                                              .memory_limit = options.memory_limit}));
  MUSTER_RETURN_IF_ERROR(UseOnce(*device));
  return std::make_unique<NcclRank>(std::move(device), options);
}

}  // namespace muster::testing
