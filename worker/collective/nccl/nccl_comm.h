#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_COMM_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_COMM_H_

#include <atomic>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/collective/nccl/nccl_library.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster {

// A communicator of NCCL that never blocks: every call is followed to its end, against a deadline.
// Used by one thread at a time, but for Abort and Health.
class NcclComm {
 public:
  // Why a wait should end before its time; OK: it goes on. Called often.
  using Interrupt = absl::FunctionRef<absl::Status()>;

  // Both outlive it.
  NcclComm(const NcclLibrary& nccl, const CudaDevice& device) : nccl_(nccl), device_(device) {}
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;
  // Sends what is still on its way, for a second at most, then gives all back. Graphs that
  // hold operations must be gone: NCCL waits for them.
  ~NcclComm();

  // Once; together with all other ranks. DEADLINE_EXCEEDED, `interrupt`'s or NCCL's error: the
  // communicator is then of no use.
  absl::Status Join(const ncclUniqueId& id, int size, int rank, absl::Duration timeout,
                    Interrupt interrupt);

  // Enqueues what `calls` calls, as one group. Errors as of Join; ABORTED after Abort.
  absl::Status Run(absl::FunctionRef<ncclResult_t(ncclComm_t)> calls, absl::Duration timeout,
                   Interrupt interrupt);

  // The error of what was enqueued, as far as NCCL knows. Any thread.
  absl::Status Health();

  // All later calls fail, and the kernels that still run after a moment, in which what all ranks
  // have begun may come to its end, are cut off without their result. Waits for nothing. Any
  // thread.
  void Abort();
  // Whether that moment is over.
  bool cut_off() const { return cut_off_.load(); }

 private:
  absl::Status Follow(absl::string_view what, absl::Duration timeout, Interrupt interrupt);
  // Of the last call; INTERNAL once aborted.
  ncclResult_t Progress();
  void Flush();

  const NcclLibrary& nccl_;
  const CudaDevice& device_;

  std::atomic<bool> cut_off_{false};

  absl::Mutex mu_;  // held by every call that takes comm_, which no call may after an abort
  ncclComm_t comm_ ABSL_GUARDED_BY(mu_) = nullptr;
  bool aborted_ ABSL_GUARDED_BY(mu_) = false;
  std::thread aborting_ ABSL_GUARDED_BY(mu_);  // since it ends with the last graph
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_COMM_H_
