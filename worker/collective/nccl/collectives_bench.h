#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_COLLECTIVES_BENCH_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_COLLECTIVES_BENCH_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "kernels/dtype.h"
#include "tests/support/run_ranks.h"
#include "worker/collective/collective_set.h"
#include "worker/collective/ipc/ipc_backend.h"
#include "worker/collective/nccl/nccl_backend.h"
#include "worker/collective/nccl/plain_nccl.h"
#include "worker/collective/nccl/replay_timer.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster {

// What one rank measures with: its device, the collectives that are compared, and operands of the
// largest sizes that any table has. All ranks make the same calls in the same order.
struct CollectivesBench {
  static constexpr int kMostHidden = 7168, kMostTokens = 2048;
  static constexpr size_t kMostCount = size_t{kMostHidden} * kMostTokens;
  static constexpr int kHeads = 32, kHeadDim = 128, kMostCombined = 128;
  static constexpr int kNan = 0xFF;  // in every byte

  static absl::StatusOr<std::unique_ptr<CollectivesBench>> Make(testing::RankContext& context);

  int rank() const { return context.rank.value(); }
  CudaStream cuda_stream() { return CudaDeviceStream::From(*stream).get(); }

  template <typename T>
  absl::StatusOr<std::vector<T>> Download(const Buffer& from, size_t count) {
    std::vector<T> values(count);
    MUSTER_RETURN_IF_ERROR(
        device->Copy(*stream, values.data(), from.data(), values.size() * sizeof(T)));
    MUSTER_RETURN_IF_ERROR(stream->Synchronize());
    return values;
  }
  absl::Status Clear(const Buffer& buffer, int byte);

  // Bytes a microsecond, of all ranks at once.
  absl::StatusOr<double> PeerCopySpeed();

  // By rank 0.
  void Say(absl::string_view text) const;

  testing::RankContext& context;
  const int ranks_on_gpu;
  Ledger ledger;
  const std::unique_ptr<CudaDevice> device;
  CpuDevice host;
  const Group group;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<ReplayTimer> timer;

  // What the operands of all ranks hold, and this rank's on its device.
  std::vector<std::vector<BFloat16>> partials;  // by rank
  std::vector<BFloat16> residuals;
  std::vector<float> weights;
  std::vector<std::vector<float>> lses;  // by rank
  Buffer partial, summed, residual, residual_out, norm, weight, lse;

  IpcBackend ipc;
  NcclBackend nccl;
  std::vector<std::unique_ptr<Rendezvous>> rendezvous;
  std::unique_ptr<CollectiveSet> fused, unfused;
  // Null where a rank lacks the library.
  std::unique_ptr<CollectiveSet> over_nccl;
  std::unique_ptr<PlainNccl> plain;

 private:
  CollectivesBench(testing::RankContext& context, std::unique_ptr<CudaDevice> device,
                   int ranks_on_gpu);

  NcclSettings settings() const { return {.oversubscribed = ranks_on_gpu > 1}; }
  absl::StatusOr<std::unique_ptr<CollectiveSet>> WarmUp(Epoch epoch, CollectiveBackend& backend,
                                                        Fusion fusion);
  absl::Status JoinNccl();
  absl::Status Fill();
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_COLLECTIVES_BENCH_H_
