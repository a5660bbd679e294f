#include "worker/collective/ipc/ipc_peers.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda_status.h"
#include "worker/collective/ipc/device_stamp.h"

namespace muster {
namespace {

constexpr uint64_t kLayoutVersion = 1;

}  // namespace

// What the streams watch; they may outlive the peers.
class IpcPeers::Fault final : public CudaFault {
 public:
  explicit Fault(IpcPeers& peers) : peers_(peers) {}
  absl::Status Check() override { return peers_.CheckFault(); }

 private:
  IpcPeers& peers_;
};

IpcPeers::IpcPeers(const Group& group, CudaDevice& device, IpcMemory memory, const Options& options)
    : group_(group),
      device_(device),
      options_(options),
      memory_(std::move(memory)),
      fault_(std::make_shared<Fault>(*this)) {
  Digest digest;
  digest.Add(kLayoutVersion);
  digest.Add(static_cast<uint64_t>(options.layout.slot_bytes));
  digest.Add(static_cast<uint64_t>(options.layout.slice_bytes));
  for (GlobalRank rank : group.spec().ranks) digest.Add(static_cast<uint64_t>(rank.value()));
  layout_digest_ = digest.value();
  memory_.page().layout = layout_digest_;
  pages_[rank()].store(&memory_.page());
  peers_.layout = options.layout;
  peers_.rank = rank();
  peers_.max_blocks = std::clamp(device.multiprocessor_budget(), 1, kMaxPeerBlocks);
  peers_.max_row_blocks = MaxRowBlocks(device.gpu().compute_capability);
  peers_.timeout_ns = absl::ToInt64Nanoseconds(options.wait_timeout);
  peers_.regions[rank()] = memory_.region();
  if (memory_.device_page() != nullptr) {
    peers_.fault = &memory_.device_page()->fault;
    peers_.control = reinterpret_cast<const uint32_t*>(&memory_.device_page()->control);
  }
}

IpcPeers::~IpcPeers() {
  for (int peer = 0; peer < size(); ++peer) {
    IpcPage* page = pages_[peer].load();
    if (peer != rank() && page != nullptr) page->control.fetch_or(PeerGone(rank()));
  }
}

std::string IpcPeers::Handle() const {
  return absl::StrCat(peers_.max_blocks, ";", memory_.Handle());
}

absl::Status IpcPeers::Open(const std::vector<std::string>& handles) {
  if (static_cast<int>(handles.size()) != size()) {
    return absl::InvalidArgumentError(absl::StrCat(handles.size(), " handles for the ", size(),
                                                   " ranks of ", group_.DebugString()));
  }
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const absl::Status opened = OpenPeer(peer, handles[peer]);
    if (opened.ok()) continue;
    return MakeError(opened.code(),
                     absl::StrCat("memory of rank ", Global(peer).value(), " in ",
                                  group_.DebugString(), ": ", opened.message()),
                     {.reason = opened.code() == absl::StatusCode::kFailedPrecondition
                                    ? ErrorReason::kDisagreement
                                    : ErrorReason::kRankFailed,
                      .ranks = {Global(peer)}});
  }
  const ShmAbort& abort = memory_.page().abort;
  return abort.raised() ? abort.Reason() : absl::OkStatus();
}

absl::Status IpcPeers::OpenPeer(int peer, const std::string& handle) {
  const std::vector<absl::string_view> parts = absl::StrSplit(handle, absl::MaxSplits(';', 1));
  int max_blocks = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &max_blocks) || max_blocks < 1) {
    return absl::InvalidArgumentError("not a handle of a workspace");
  }
  MUSTER_ASSIGN_OR_RETURN(IpcPeerMemory memory, IpcPeerMemory::Open(parts[1], device_));
  auto* page = std::launder(reinterpret_cast<IpcPage*>(memory.page.data()));
  if (page->layout != layout_digest_ || memory.region.bytes() < memory_.bytes()) {
    return absl::FailedPreconditionError(
        absl::StrCat("has another layout of workspaces: ", DigestString(page->layout), ", here ",
                     DigestString(layout_digest_)));
  }
  peers_.max_blocks = std::min(peers_.max_blocks, max_blocks);
  peers_.regions[peer] = static_cast<std::byte*>(memory.region.data());
  opened_.push_back(std::move(memory));
  pages_[peer].store(page);
  return absl::OkStatus();
}

absl::Status IpcPeers::Enqueue(Stream& stream, const CollectiveStamp& stamp, Launch launch) {
  const ShmAbort& abort = memory_.page().abort;
  if (abort.raised()) return abort.Reason();
  MUSTER_RETURN_IF_ERROR(device_.MakeCurrent());
  CudaDeviceStream& cuda = CudaDeviceStream::From(stream);
  cuda.Watch(fault_);
  const CudaLaunch launched = launch(peers_, ToDevice(stamp), cuda.get());
  if (launched.error == cudaErrorInvalidValue) {
    return absl::InvalidArgumentError(
        absl::StrCat(stamp.DebugString(), " does not fit the workspace of ", group_.DebugString()));
  }
  return CudaStatus(launched, stamp.DebugString());
}

absl::Status IpcPeers::CheckFault() {
  const PeerFault& fault = memory_.page().fault;
  const uint32_t failed = *static_cast<const volatile uint32_t*>(&fault.failed_operations);
  if (std::exchange(failed_operations_, failed) == failed) return absl::OkStatus();
  std::atomic_thread_fence(std::memory_order_acquire);
  const absl::Status reason = StatusOf(fault);
  Abort(reason);
  options_.log.Error("collective ", fault.own.sequence, " of ", group_.DebugString(),
                     " failed: ", reason.ToString(absl::StatusToStringMode::kWithNoExtraData));
  return memory_.page().abort.Reason();
}

absl::Status IpcPeers::StatusOf(const PeerFault& fault) const {
  switch (fault.failure) {
    case PeerFailure::kMissing:
      return MissingRanks(fault);
    case PeerFailure::kDisagreement:
      return Disagreement(fault);
    case PeerFailure::kGone:
      return MakeError(
          absl::StatusCode::kUnavailable,
          absl::StrCat("rank ", Global(fault.peer).value(), " left ", group_.DebugString(),
                       " before collective ", fault.own.sequence),
          {.reason = ErrorReason::kRankLost, .ranks = {Global(fault.peer)}});
    case PeerFailure::kAborted:
    case PeerFailure::kNone:
      break;
  }
  return memory_.page().abort.Reason();
}

absl::Status IpcPeers::MissingRanks(const PeerFault& fault) const {
  ErrorDetail detail{.reason = ErrorReason::kRankMissing};
  std::vector<std::string> missing;
  for (int peer = 0; peer < size(); ++peer) {
    const PeerStamp& latest = fault.latest[peer];
    if (peer != fault.peer && latest.sequence == fault.own.sequence) continue;
    detail.ranks.push_back(Global(peer));
    missing.push_back(absl::StrCat("rank ", Global(peer).value(), " (group rank ", peer,
                                   ", at collective ", latest.sequence, ": ",
                                   FromDevice(latest).DebugString(), ")"));
  }
  return MakeError(
      absl::StatusCode::kDeadlineExceeded,
      absl::StrCat("missing after ", absl::FormatDuration(options_.wait_timeout), " in collective ",
                   fault.own.sequence, " of ", group_.DebugString(), ", ",
                   FromDevice(fault.own).DebugString(), ": ", absl::StrJoin(missing, ", ")),
      detail);
}

absl::Status IpcPeers::Disagreement(const PeerFault& fault) const {
  const GlobalRank self = Global(rank()), other = Global(fault.peer);
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("ranks disagree on collective ", fault.own.sequence, " of ",
                                group_.DebugString(), ": rank ", self.value(), " has ",
                                FromDevice(fault.own).DebugString(), ", rank ", other.value(),
                                " has ", FromDevice(fault.latest[fault.peer]).DebugString()),
                   {.reason = ErrorReason::kDisagreement, .ranks = {self, other}});
}

void IpcPeers::Abort(const absl::Status& reason) {
  const absl::Status status = reason.ok() ? absl::AbortedError("aborted") : reason;
  // The own page first: a rank that is to open later finds it there.
  IpcPage& own = memory_.page();
  own.abort.Raise(status);
  own.control.fetch_or(kPeerAbort);
  for (int peer = 0; peer < size(); ++peer) {
    IpcPage* page = pages_[peer].load();
    if (page == nullptr || peer == rank()) continue;
    page->abort.Raise(status);
    page->control.fetch_or(kPeerAbort);
  }
}

}  // namespace muster
