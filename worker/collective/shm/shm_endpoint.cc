#include "worker/collective/shm/shm_endpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "worker/collective/shm/shm_communicator.h"
#include "worker/collective/shm/shm_switch_point.h"
#include "worker/collective/shm/shm_unfused_workspace.h"
#include "worker/collective/shm/shm_workspace.h"
#include "worker/device/cpu/cpu_stream.h"

namespace muster {

ShmEndpoint::ShmEndpoint(const Group& group, ShmSegment segment, const ShmPeers::Options& options)
    : group_(group), segment_(std::move(segment)), peers_(group, segment_->data(), options) {}

ShmEndpoint::ShmEndpoint(const Group& group, Buffer memory, const ShmPeers::Options& options)
    : group_(group), memory_(std::move(memory)), peers_(group, memory_.as<std::byte>(), options) {}

std::string ShmEndpoint::Handle() const {
  return segment_.has_value() ? segment_->handle().Encode() : "";
}

absl::Status ShmEndpoint::Open(const std::vector<std::string>& handles) {
  if (static_cast<int>(handles.size()) != group_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        handles.size(), " handles for the ", group_.size(), " ranks of ", group_.DebugString()));
  }
  std::vector<std::byte*> memory(handles.size(), nullptr);
  for (int peer = 0; peer < group_.size(); ++peer) {
    if (peer == group_.rank().value()) continue;
    const GlobalRank rank = group_.ToGlobal(GroupRank(peer));
    const auto refuse = [&](const absl::Status& status) {
      return MakeError(status.code(),
                       absl::StrCat("memory of rank ", rank.value(), " in ", group_.DebugString(),
                                    ": ", status.message()),
                       {.reason = ErrorReason::kRankFailed, .ranks = {rank}});
    };
    absl::StatusOr<ShmHandle> handle = ShmHandle::Decode(handles[peer]);
    if (!handle.ok()) return refuse(handle.status());
    if (handle->bytes != segment_->bytes()) {
      return refuse(absl::FailedPreconditionError(
          absl::StrCat("has ", handle->bytes, " bytes, here it is ", segment_->bytes())));
    }
    absl::StatusOr<ShmMapping> mapping = ShmMapping::Open(*handle);
    if (!mapping.ok()) return refuse(mapping.status());
    memory[peer] = mapping->data();
    mappings_.push_back(*std::move(mapping));
  }
  return peers_.Attach(memory);
}

void ShmEndpoint::StopExporting() {
  if (segment_.has_value()) segment_->StopExporting();
}

std::unique_ptr<Workspace> ShmEndpoint::MakeWorkspace(const Group& group, Fusion fusion) {
  if (fusion == Fusion::kFused) return std::make_unique<ShmWorkspace>(group, peers_);
  return std::make_unique<ShmUnfusedWorkspace>(group, peers_);
}

std::unique_ptr<Communicator> ShmEndpoint::MakeCommunicator(const Group& group) {
  return std::make_unique<ShmCommunicator>(group, peers_);
}

absl::StatusOr<uint64_t> ShmEndpoint::MeasureTwoShotBytes(Stream& stream) {
  return muster::MeasureTwoShotBytes(peers_, CpuStream::From(stream).pool());
}

}  // namespace muster
