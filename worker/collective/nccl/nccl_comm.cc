#include "worker/collective/nccl/nccl_comm.h"

#include <sched.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace muster {
namespace {

// NCCL itself takes up to half a second to end its threads.
constexpr absl::Duration kFlushTimeout = absl::Seconds(1);
// Longer than anything takes that only waits to be delivered.
constexpr absl::Duration kBeforeCutOff = absl::Milliseconds(50);
constexpr absl::Duration kSpin = absl::Microseconds(500);
constexpr absl::Duration kNap = absl::Microseconds(100);

}  // namespace

NcclComm::~NcclComm() {
  Flush();
  std::thread aborting;
  {
    absl::MutexLock lock(&mu_);
    aborting.swap(aborting_);
  }
  if (aborting.joinable()) aborting.join();
}

void NcclComm::Flush() {
  {
    absl::MutexLock lock(&mu_);
    if (comm_ == nullptr || aborted_) return;
    device_.MakeCurrent().IgnoreError();
    nccl_.CommFinalize(comm_);
  }
  if (!Follow("leaving a communicator", kFlushTimeout, [] { return absl::OkStatus(); }).ok()) {
    return Abort();
  }
  absl::MutexLock lock(&mu_);
  if (!aborted_) nccl_.CommDestroy(comm_);
  comm_ = nullptr;
}

absl::Status NcclComm::Join(const ncclUniqueId& id, int size, int rank, absl::Duration timeout,
                            Interrupt interrupt) {
  MUSTER_RETURN_IF_ERROR(device_.MakeCurrent());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  {
    absl::MutexLock lock(&mu_);
    if (aborted_) return absl::AbortedError("the communicator was aborted");
    MUSTER_RETURN_IF_ERROR(nccl_.StatusOf(nccl_.CommInitRankConfig(&comm_, size, id, rank, &config),
                                          "joining a communicator"));
  }
  return Follow("joining a communicator", timeout, interrupt);
}

absl::Status NcclComm::Run(absl::FunctionRef<ncclResult_t(ncclComm_t)> calls,
                           absl::Duration timeout, Interrupt interrupt) {
  {
    absl::MutexLock lock(&mu_);
    if (comm_ == nullptr || aborted_) return absl::AbortedError("the communicator was aborted");
    ncclResult_t result = nccl_.GroupStart();
    if (result == ncclSuccess) result = calls(comm_);
    const ncclResult_t ended = nccl_.GroupEnd();
    if (result == ncclSuccess || result == ncclInProgress) result = ended;
    MUSTER_RETURN_IF_ERROR(nccl_.StatusOf(result, "enqueueing"));
  }
  return Follow("enqueueing", timeout, interrupt);
}

ncclResult_t NcclComm::Progress() {
  absl::MutexLock lock(&mu_);
  if (comm_ == nullptr || aborted_) return ncclInternalError;
  ncclResult_t state = ncclInternalError;
  const ncclResult_t asked = nccl_.CommGetAsyncError(comm_, &state);
  return asked == ncclSuccess ? state : asked;
}

absl::Status NcclComm::Follow(absl::string_view what, absl::Duration timeout, Interrupt interrupt) {
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    const ncclResult_t state = Progress();
    if (state == ncclSuccess) return absl::OkStatus();
    MUSTER_RETURN_IF_ERROR(interrupt());
    MUSTER_RETURN_IF_ERROR(nccl_.StatusOf(state, what));
    const absl::Duration waited = absl::FromChrono(std::chrono::steady_clock::now() - start);
    if (waited >= timeout) {
      return absl::DeadlineExceededError(absl::StrCat(what, ": NCCL has not come to an end after ",
                                                      absl::FormatDuration(timeout)));
    }
    if (waited < kSpin) {
      sched_yield();
    } else {
      absl::SleepFor(kNap);
    }
  }
}

absl::Status NcclComm::Health() {
  absl::MutexLock lock(&mu_);
  if (comm_ == nullptr || aborted_) return absl::OkStatus();
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = nccl_.CommGetAsyncError(comm_, &state);
  return nccl_.StatusOf(asked == ncclSuccess ? state : asked, "collective");
}

void NcclComm::Abort() {
  absl::MutexLock lock(&mu_);
  if (aborted_) return;
  aborted_ = true;
  if (comm_ == nullptr) return;
  aborting_ = std::thread([this, comm = comm_] {
    absl::SleepFor(kBeforeCutOff);
    cut_off_.store(true);
    device_.MakeCurrent().IgnoreError();
    nccl_.CommAbort(comm);
  });
}

}  // namespace muster
