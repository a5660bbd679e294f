#include "worker/collective/ipc/ipc_unfused_workspace.h"

#include "base/status_macros.h"
#include "kernels/cuda_status.h"
#include "worker/collective/ipc/ipc_communicator.h"
#include "worker/collective/shm/workspace_ops.h"

namespace muster {

absl::Status IpcUnfusedWorkspace::Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) {
  MUSTER_RETURN_IF_ERROR(CheckOp(op, static_cast<uint64_t>(peers_.layout().slot_bytes)));
  const size_t count = static_cast<size_t>(op.tokens) * static_cast<size_t>(op.hidden);
  MUSTER_RETURN_IF_ERROR(IpcAllReduce(peers_, stream, op.partial, op.norm_out, count, op.dtype));
  return CudaStatus(IpcAddRmsNorm(op, op.norm_out, CudaDeviceStream::From(stream).get()),
                    "residual and norm");
}

}  // namespace muster
