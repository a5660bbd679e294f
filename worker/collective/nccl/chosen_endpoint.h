#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_CHOSEN_ENDPOINT_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_CHOSEN_ENDPOINT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/logging.h"
#include "worker/collective/collective_backend.h"
#include "worker/collective/nccl/gpu_reach.h"
#include "worker/device/cuda/device_choice.h"

namespace muster {

// What this process knows of `gpu` among `gpus`, all that it sees. CUDA's errors.
absl::StatusOr<GpuReach> ReachOf(const CudaGpu& gpu, const std::vector<CudaGpu>& gpus);
absl::StatusOr<bool> AllReachEachOther(const std::vector<CudaGpu>& gpus);

// One of two ends, which is decided when the ranks open theirs: IPC where all GPUs of the group
// reach each other. The other end is then given back. Its workspaces and communicators can be made
// before, and used after.
class ChosenEndpoint final : public CollectiveEndpoint {
 public:
  struct Candidates {
    std::unique_ptr<CollectiveEndpoint> ipc;
    std::unique_ptr<CollectiveEndpoint> nccl;  // null where this rank saw no need for it
  };

  ChosenEndpoint(const Group& group, GpuReach reach, Candidates candidates, const Logger& log);

  std::string Handle() const override;
  // As of the end that is chosen; FAILED_PRECONDITION names two GPUs that do not reach each other,
  // and a rank that saw no need for NCCL.
  absl::Status Open(const std::vector<std::string>& handles) override;
  void StopExporting() override { chosen()->StopExporting(); }
  std::unique_ptr<Workspace> MakeWorkspace(const Group& group, Fusion fusion) override;
  std::unique_ptr<Communicator> MakeCommunicator(const Group& group) override;
  absl::StatusOr<uint64_t> MeasureTwoShotBytes(Stream& stream) override {
    return chosen()->MeasureTwoShotBytes(stream);
  }
  void SetTwoShotBytes(uint64_t bytes) override { chosen()->SetTwoShotBytes(bytes); }
  bool fuses() const override { return chosen()->fuses(); }
  void Abort(const absl::Status& reason) override;

  // Null until Open.
  CollectiveEndpoint* chosen() const;

 private:
  absl::StatusOr<bool> ChooseNccl(const std::vector<std::vector<std::string>>& handles) const;
  std::string NameOf(int rank, const GpuReach& reach) const;

  const Group group_;
  const GpuReach reach_;
  const Logger log_;

  mutable absl::Mutex mu_;
  Candidates ends_ ABSL_GUARDED_BY(mu_);
  CollectiveEndpoint* chosen_ ABSL_GUARDED_BY(mu_) = nullptr;
  absl::Status aborted_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_CHOSEN_ENDPOINT_H_
