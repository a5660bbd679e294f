#include "worker/collective/nccl/chosen_endpoint.h"

#include <cuda_runtime_api.h>

#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"

namespace muster {
namespace {

absl::Status NotOpened() {
  return absl::FailedPreconditionError("the ranks have not opened each other's ends yet");
}

// Makes the real one when it is first used.
class ChosenWorkspace final : public Workspace {
 public:
  ChosenWorkspace(const Group& group, Fusion fusion, ChosenEndpoint& endpoint)
      : group_(group), fusion_(fusion), endpoint_(endpoint) {}

  const Group& group() const override { return group_; }
  absl::Status Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) override {
    return real() == nullptr ? NotOpened() : real_->Enqueue(stream, op);
  }
  absl::Status Enqueue(Stream& stream, const CpCombine& op) override {
    return real() == nullptr ? NotOpened() : real_->Enqueue(stream, op);
  }
  void Abort(const absl::Status& reason) override { endpoint_.Abort(reason); }
  size_t bytes() const override { return real() == nullptr ? 0 : real_->bytes(); }
  uint64_t layout_digest() const override { return real() == nullptr ? 0 : real_->layout_digest(); }

 private:
  Workspace* real() const {
    CollectiveEndpoint* const chosen = endpoint_.chosen();
    if (real_ == nullptr && chosen != nullptr) real_ = chosen->MakeWorkspace(group_, fusion_);
    return real_.get();
  }

  const Group group_;
  const Fusion fusion_;
  ChosenEndpoint& endpoint_;
  mutable std::unique_ptr<Workspace> real_;
};

class ChosenCommunicator final : public Communicator {
 public:
  ChosenCommunicator(const Group& group, ChosenEndpoint& endpoint)
      : group_(group), endpoint_(endpoint) {}

  const Group& group() const override { return group_; }
  absl::Status AllReduce(Stream& stream, void* data, size_t count, DType dtype) override {
    return real() == nullptr ? NotOpened() : real_->AllReduce(stream, data, count, dtype);
  }
  absl::Status AllGather(Stream& stream, const void* send, void* receive, size_t bytes) override {
    return real() == nullptr ? NotOpened() : real_->AllGather(stream, send, receive, bytes);
  }
  absl::Status ReduceScatter(Stream& stream, const void* send, void* receive, size_t count,
                             DType dtype) override {
    if (real() == nullptr) return NotOpened();
    return real_->ReduceScatter(stream, send, receive, count, dtype);
  }
  absl::Status Broadcast(Stream& stream, void* data, size_t bytes, GroupRank root) override {
    return real() == nullptr ? NotOpened() : real_->Broadcast(stream, data, bytes, root);
  }
  absl::Status Barrier(Stream& stream) override {
    return real() == nullptr ? NotOpened() : real_->Barrier(stream);
  }
  void Abort(const absl::Status& reason) override { endpoint_.Abort(reason); }

 private:
  Communicator* real() {
    CollectiveEndpoint* const chosen = endpoint_.chosen();
    if (real_ == nullptr && chosen != nullptr) real_ = chosen->MakeCommunicator(group_);
    return real_.get();
  }

  const Group group_;
  ChosenEndpoint& endpoint_;
  std::unique_ptr<Communicator> real_;
};

absl::StatusOr<bool> CanAccess(const CudaGpu& from, const CudaGpu& to) {
  if (from.uuid == to.uuid) return true;
  int possible = 0;
  MUSTER_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceCanAccessPeer(&possible, from.ordinal.value(), to.ordinal.value()),
                 "asking for peer access"));
  return possible != 0;
}

// The parts of a handle: this rank's GPU, its end of IPC, its end of NCCL.
enum Part { kReach = 0, kIpc = 1, kNccl = 2, kParts = 3 };

std::vector<std::string> PartsOf(const std::vector<std::vector<std::string>>& handles, Part part) {
  std::vector<std::string> parts;
  for (const std::vector<std::string>& handle : handles) parts.push_back(handle[part]);
  return parts;
}

}  // namespace

absl::StatusOr<GpuReach> ReachOf(const CudaGpu& gpu, const std::vector<CudaGpu>& gpus) {
  GpuReach reach{.host = HostWord(), .uuid = gpu.uuid};
  for (const CudaGpu& other : gpus) {
    MUSTER_ASSIGN_OR_RETURN(const bool reachable, CanAccess(gpu, other));
    if (!reachable) reach.unreachable.push_back(other.uuid);
  }
  return reach;
}

absl::StatusOr<bool> AllReachEachOther(const std::vector<CudaGpu>& gpus) {
  for (const CudaGpu& gpu : gpus) {
    MUSTER_ASSIGN_OR_RETURN(const GpuReach reach, ReachOf(gpu, gpus));
    if (!reach.unreachable.empty()) return false;
  }
  return true;
}

ChosenEndpoint::ChosenEndpoint(const Group& group, GpuReach reach, Candidates candidates,
                               const Logger& log)
    : group_(group), reach_(std::move(reach)), log_(log), ends_(std::move(candidates)) {}

std::string ChosenEndpoint::Handle() const {
  absl::MutexLock lock(&mu_);
  return absl::StrCat(reach_.Encode(), "|", ends_.ipc->Handle(), "|",
                      ends_.nccl == nullptr ? "" : ends_.nccl->Handle());
}

std::string ChosenEndpoint::NameOf(int rank, const GpuReach& reach) const {
  return absl::StrCat(reach.uuid, " of rank ", group_.ToGlobal(GroupRank(rank)).value());
}

absl::StatusOr<bool> ChosenEndpoint::ChooseNccl(
    const std::vector<std::vector<std::string>>& handles) const {
  std::vector<GpuReach> ranks;
  for (const std::vector<std::string>& handle : handles) {
    MUSTER_ASSIGN_OR_RETURN(ranks.emplace_back(), GpuReach::Decode(handle[kReach]));
  }
  const auto pair = FirstUnreachable(ranks);
  if (!pair.has_value()) return false;
  const std::string what = absl::StrCat(group_.DebugString(), ": no peer access between ",
                                        NameOf(pair->first, ranks[pair->first]), " and ",
                                        NameOf(pair->second, ranks[pair->second]));
  for (int rank = 0; rank < group_.size(); ++rank) {
    if (!handles[rank][kNccl].empty()) continue;
    const GlobalRank blind = group_.ToGlobal(GroupRank(rank));
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat(what, ", and rank ", blind.value(),
                                  " saw no need for NCCL: does its process see other GPUs?"),
                     {.reason = ErrorReason::kDisagreement, .ranks = {blind}});
  }
  log_.Warning(what, ": NCCL");
  return true;
}

absl::Status ChosenEndpoint::Open(const std::vector<std::string>& handles) {
  std::vector<std::vector<std::string>> parts;
  for (const std::string& handle : handles) {
    parts.push_back(absl::StrSplit(handle, '|'));
    if (parts.back().size() != kParts) {
      return absl::InvalidArgumentError("not a handle of a GPU's collectives");
    }
  }
  if (static_cast<int>(parts.size()) != group_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        handles.size(), " handles for the ", group_.size(), " ranks of ", group_.DebugString()));
  }
  MUSTER_ASSIGN_OR_RETURN(const bool nccl, ChooseNccl(parts));
  CollectiveEndpoint* chosen = nullptr;
  {
    std::unique_ptr<CollectiveEndpoint> other;  // goes when the lock is gone
    absl::MutexLock lock(&mu_);
    if (!aborted_.ok()) return aborted_;
    other = std::move(nccl ? ends_.ipc : ends_.nccl);
    chosen = chosen_ = nccl ? ends_.nccl.get() : ends_.ipc.get();
  }
  return chosen->Open(PartsOf(parts, nccl ? kNccl : kIpc));
}

std::unique_ptr<Workspace> ChosenEndpoint::MakeWorkspace(const Group& group, Fusion fusion) {
  return std::make_unique<ChosenWorkspace>(group, fusion, *this);
}

std::unique_ptr<Communicator> ChosenEndpoint::MakeCommunicator(const Group& group) {
  return std::make_unique<ChosenCommunicator>(group, *this);
}

CollectiveEndpoint* ChosenEndpoint::chosen() const {
  absl::MutexLock lock(&mu_);
  return chosen_;
}

void ChosenEndpoint::Abort(const absl::Status& reason) {
  absl::MutexLock lock(&mu_);
  if (aborted_.ok()) aborted_ = reason.ok() ? absl::AbortedError("aborted") : reason;
  for (CollectiveEndpoint* end : {ends_.ipc.get(), ends_.nccl.get()}) {
    if (end != nullptr) end->Abort(aborted_);
  }
}

}  // namespace muster
