#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_PLAIN_NCCL_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_PLAIN_NCCL_H_

#include <nccl.h>

#include <algorithm>
#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "kernels/cuda_launch.h"
#include "worker/collective/group.h"
#include "worker/collective/nccl/nccl_comm.h"
#include "worker/collective/nccl/nccl_library.h"
#include "worker/device/cuda/cuda_device.h"
#include "worker/device/cuda/shared_library.h"

namespace muster {

// NCCL's own all-reduce, as a framework calls it.
class PlainNccl {
 public:
  // Both outlive it. `patience`: with one call.
  PlainNccl(const NcclLibrary& nccl, const CudaDevice& device, absl::Duration patience)
      : nccl_(nccl), patience_(patience), comm_(nccl, device) {}

  // All ranks together. `id`: of rank 0, in hexadecimal.
  absl::Status Join(const std::string& id, const Group& group) {
    MUSTER_ASSIGN_OR_RETURN(const SharedLibrary library,
                            SharedLibrary::Open("NCCL", {nccl_.path()}));
    MUSTER_ASSIGN_OR_RETURN(all_reduce_,
                            library.Function<decltype(ncclAllReduce)>("ncclAllReduce"));
    const std::string bytes = absl::HexStringToBytes(id);
    ncclUniqueId unique;
    if (bytes.size() != sizeof(unique.internal)) return absl::InternalError("no id");
    std::copy(bytes.begin(), bytes.end(), unique.internal);
    return comm_.Join(unique, group.size(), group.rank().value(), patience_, Uninterrupted);
  }

  absl::Status AllReduceInPlace(void* data, size_t count, CudaStream stream) {
    return comm_.Run(
        [&](ncclComm_t comm) {
          return all_reduce_(data, data, count, ncclBfloat16, ncclSum, comm, stream);
        },
        patience_, Uninterrupted);
  }

 private:
  static absl::Status Uninterrupted() { return absl::OkStatus(); }

  const NcclLibrary& nccl_;
  const absl::Duration patience_;
  decltype(&ncclAllReduce) all_reduce_ = nullptr;
  NcclComm comm_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_PLAIN_NCCL_H_
