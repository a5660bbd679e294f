#include "worker/collective/nccl/nccl_peers.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/escaping.h"
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

constexpr absl::string_view kVersion = "nccl1";
// A communicator of many ranks takes its time to connect, however short an operation's may be.
constexpr absl::Duration kLeastPatience = absl::Seconds(20);
// NCCL's own error says that a connection broke, not whose fault it is: the reason may be under
// way.
constexpr absl::Duration kGrace = absl::Seconds(1);

bool Agree(const PeerStamp& a, const PeerStamp& b) {
  return a.what == b.what && a.rows == b.rows && a.row_bytes == b.row_bytes;
}

// That of an operation, if it is still kept; its device may be writing others.
std::optional<PeerStamp> StampOf(const NcclPage& page, uint32_t sequence) {
  const volatile uint32_t& latest = page.arrivals.sequence;
  const auto kept = [&] { return latest - sequence < NcclArrivals::kKept / 2; };
  if (!kept()) return std::nullopt;
  std::atomic_thread_fence(std::memory_order_acquire);
  const PeerStamp stamp = page.arrivals.stamps[sequence % NcclArrivals::kKept];
  std::atomic_thread_fence(std::memory_order_acquire);
  if (!kept() || stamp.sequence != sequence) return std::nullopt;
  return stamp;
}

}  // namespace

// What the streams watch; they may outlive the peers.
class NcclPeers::Fault final : public CudaFault {
 public:
  explicit Fault(NcclPeers& peers) : peers_(peers) {}
  bool polled() const override { return true; }
  void Poll(absl::Duration waited) override { peers_.Watch(waited); }
  absl::Status Check() override { return peers_.CheckFault(); }

 private:
  NcclPeers& peers_;
};

NcclPeers::NcclPeers(const Group& group, const NcclLibrary* nccl, CudaDevice& device,
                     NcclMemory memory, const Options& options)
    : group_(group),
      nccl_(nccl),
      device_(device),
      options_(options),
      memory_(std::move(memory)),
      fault_(std::make_shared<Fault>(*this)),
      patience_(std::max(options.wait_timeout, kLeastPatience)) {
  Digest digest;
  digest.Add(kVersion);
  digest.Add(options.slab_bytes);
  digest.Add(options.box_bytes);
  for (GlobalRank rank : group.spec().ranks) digest.Add(static_cast<uint64_t>(rank.value()));
  layout_digest_ = digest.value();
  pages_[rank()].store(&memory_.page());
  if (size() > 1) comm_.emplace(*nccl_, device_);
}

NcclPeers::~NcclPeers() {
  fault_.reset();
  if (comm_.has_value() && !Interrupted().ok()) comm_->Abort();
  comm_.reset();
  if (id_.has_value()) ForgetId();
  memory_.page().gone.store(1);
}

void NcclPeers::ForgetId() {
  NcclComm alone(*nccl_, device_);
  alone.Join(*id_, 1, 0, options_.wait_timeout, [] { return absl::OkStatus(); }).IgnoreError();
}

std::string NcclPeers::Handle() {
  std::string id;
  if (rank() == 0 && size() > 1) {
    ncclUniqueId made;
    const absl::Status status = nccl_->StatusOf(nccl_->GetUniqueId(&made), "making an id");
    if (status.ok()) {
      id_ = made;
      id = absl::BytesToHexString(absl::string_view(made.internal, sizeof(made.internal)));
    } else {
      options_.log.Error(group_.DebugString(), ": ",
                         status.ToString(absl::StatusToStringMode::kWithNoExtraData));
    }
  }
  return absl::StrJoin({std::string(kVersion), DigestString(layout_digest_), memory_.Handle(), id},
                       ";");
}

absl::Status NcclPeers::Open(const std::vector<std::string>& handles) {
  if (static_cast<int>(handles.size()) != size()) {
    return absl::InvalidArgumentError(absl::StrCat(handles.size(), " handles for the ", size(),
                                                   " ranks of ", group_.DebugString()));
  }
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const absl::Status opened = OpenPeer(peer, handles[peer]);
    if (opened.ok()) continue;
    return MakeError(opened.code(),
                     absl::StrCat("rank ", Global(peer).value(), " in ", group_.DebugString(), ": ",
                                  opened.message()),
                     {.reason = ErrorReason::kDisagreement, .ranks = {Global(peer)}});
  }
  MUSTER_RETURN_IF_ERROR(Interrupted());
  if (size() == 1) return absl::OkStatus();
  const std::vector<std::string> first = absl::StrSplit(handles[0], ';');
  MUSTER_RETURN_IF_ERROR(Join(first.back()));
  MUSTER_RETURN_IF_ERROR(RunAllOnce());
  patience_ = options_.wait_timeout;
  return absl::OkStatus();
}

absl::Status NcclPeers::OpenPeer(int peer, const std::string& handle) {
  const std::vector<absl::string_view> parts = absl::StrSplit(handle, ';');
  if (parts.size() != 4 || parts[0] != kVersion) {
    return absl::InvalidArgumentError("not a handle of NCCL collectives");
  }
  if (parts[1] != DigestString(layout_digest_)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "has another layout of workspaces: ", parts[1], ", here ", DigestString(layout_digest_)));
  }
  MUSTER_ASSIGN_OR_RETURN(const ShmHandle page, ShmHandle::Decode(parts[2]));
  absl::StatusOr<ShmMapping> mapping = ShmMapping::Open(page);
  if (!mapping.ok()) return absl::OkStatus();  // another host
  pages_[peer].store(std::launder(reinterpret_cast<NcclPage*>(mapping->data())));
  mappings_.push_back(*std::move(mapping));
  return absl::OkStatus();
}

absl::Status NcclPeers::Join(const std::string& id) {
  const std::string bytes = absl::HexStringToBytes(id);
  ncclUniqueId unique;
  if (id.empty() || bytes.size() != sizeof(unique.internal)) {
    return MakeError(absl::StatusCode::kUnavailable,
                     absl::StrCat("rank ", Global(0).value(), " has no id for a communicator of ",
                                  group_.DebugString()),
                     {.reason = ErrorReason::kRankFailed, .ranks = {Global(0)}});
  }
  std::memcpy(unique.internal, bytes.data(), sizeof(unique.internal));
  memory_.page().opening.store(1);
  id_.reset();
  const absl::Status joined =
      comm_->Join(unique, size(), rank(), patience_, [this] { return Interrupted(); });
  if (joined.ok() || !Interrupted().ok()) return joined;
  const absl::Status reason = MissingRanks(joined.code(), joined.message());
  Fail(reason);
  return reason;
}

// Once over pieces that are as long as they may be.
absl::Status NcclPeers::RunAllOnce() {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, device_.CreateStream());
  std::vector<Piece> pieces;
  for (int peer = 0; peer < size(); ++peer) {
    pieces.push_back({outbox(peer), box_bytes(), inbox(peer), box_bytes()});
  }
  MUSTER_RETURN_IF_ERROR(
      Enqueue(*stream, {.op = CollectiveOp::kBarrier}, [&](CudaStream cuda) -> absl::Status {
        MUSTER_RETURN_IF_ERROR(Exchange(pieces, cuda));
        MUSTER_RETURN_IF_ERROR(Gather(outbox(rank()), inbox(0), box_bytes(), cuda));
        return Broadcast(inbox(0), box_bytes(), 0, cuda);
      }));
  return stream->Synchronize();
}

absl::Status NcclPeers::Interrupted() const {
  const ShmAbort& abort = memory_.page().abort;
  return abort.raised() ? abort.Reason() : absl::OkStatus();
}

absl::Status NcclPeers::Enqueue(Stream& stream, const CollectiveStamp& stamp, Work work) {
  MUSTER_RETURN_IF_ERROR(Interrupted());
  MUSTER_RETURN_IF_ERROR(device_.MakeCurrent());
  CudaDeviceStream& cuda = CudaDeviceStream::From(stream);
  cuda.Watch(fault_);
  if (size() == 1) return work(cuda.get());
  MUSTER_RETURN_IF_ERROR(CudaStatus(
      NcclArriveCuda(memory_.device_arrivals(), ToDevice(stamp), cuda.get()), stamp.DebugString()));
  const absl::Status enqueued = work(cuda.get());
  if (enqueued.ok()) return enqueued;
  // Half of it may have been enqueued.
  if (Interrupted().ok()) Fail(Annotate(enqueued, stamp.DebugString()));
  return Interrupted();
}

absl::Status NcclPeers::Run(absl::FunctionRef<ncclResult_t(ncclComm_t)> calls) {
  return comm_->Run(calls, patience_, [this] { return Interrupted(); });
}

absl::Status NcclPeers::Gather(const void* send, void* receive, size_t bytes, CudaStream stream) {
  return Run([&](ncclComm_t comm) {
    return nccl_->AllGather(send, receive, bytes, ncclInt8, comm, stream);
  });
}

absl::Status NcclPeers::Exchange(const std::vector<Piece>& by_rank, CudaStream stream) {
  return Run([&](ncclComm_t comm) {
    ncclResult_t result = ncclSuccess;
    const auto call = [&](ncclResult_t next) {
      if (result == ncclSuccess || result == ncclInProgress) result = next;
    };
    for (int step = 1; step < size(); ++step) {
      const int to = (rank() + step) % size(), from = (rank() + size() - step) % size();
      const Piece &sent = by_rank[to], &received = by_rank[from];
      if (sent.send_bytes != 0) {
        call(nccl_->Send(sent.send, sent.send_bytes, ncclInt8, to, comm, stream));
      }
      if (received.receive_bytes != 0) {
        call(nccl_->Recv(received.receive, received.receive_bytes, ncclInt8, from, comm, stream));
      }
    }
    return result;
  });
}

absl::Status NcclPeers::Broadcast(void* data, size_t bytes, int root, CudaStream stream) {
  return Run([&](ncclComm_t comm) {
    return nccl_->Broadcast(data, data, bytes, ncclInt8, root, comm, stream);
  });
}

uint32_t NcclPeers::SequenceOf(int peer) const {
  const NcclPage* page = pages_[peer].load();
  return page == nullptr ? 0 : *static_cast<const volatile uint32_t*>(&page->arrivals.sequence);
}

void NcclPeers::Watch(absl::Duration waited) {
  if (size() == 1) return;
  if (!Interrupted().ok()) return comm_->Abort();
  const absl::Status failure = FindFailure(waited);
  if (!failure.ok()) Fail(failure);
}

absl::Status NcclPeers::FindFailure(absl::Duration waited) {
  const uint32_t own = SequenceOf(rank());
  if (own != seen_ || waited < seen_at_) {
    seen_ = own;
    seen_at_ = waited;
    sick_at_ = absl::InfiniteDuration();
  }
  for (int peer = 0; peer < size(); ++peer) {
    const NcclPage* page = pages_[peer].load();
    if (page != nullptr && page->gone.load() != 0 && SequenceOf(peer) < own) return Left(peer);
  }
  MUSTER_RETURN_IF_ERROR(CompareStamps());
  if (waited - seen_at_ >= patience_) {
    return MissingRanks(absl::StatusCode::kDeadlineExceeded,
                        absl::StrCat("missing after ", absl::FormatDuration(patience_)));
  }
  const absl::Status health = comm_->Health();
  if (health.ok()) return health;
  sick_at_ = std::min(sick_at_, waited);
  if (waited - sick_at_ < kGrace) return absl::OkStatus();
  return MissingRanks(absl::StatusCode::kUnavailable, health.message());
}

absl::Status NcclPeers::CheckFault() {
  seen_at_ = absl::ZeroDuration();
  sick_at_ = absl::InfiniteDuration();
  if (size() == 1) return absl::OkStatus();
  const absl::Status disagreement = CompareStamps();
  if (!disagreement.ok()) Fail(disagreement);
  // What was not cut off has come to its end, whatever comes after it.
  return comm_->cut_off() || !disagreement.ok() ? Interrupted() : absl::OkStatus();
}

absl::Status NcclPeers::CompareStamps() {
  const uint32_t latest = SequenceOf(rank());
  uint32_t all_came_to = latest;
  for (int peer = 0; peer < size(); ++peer) {
    const NcclPage* page = pages_[peer].load();
    if (peer == rank() || page == nullptr) continue;
    all_came_to = std::min(all_came_to, SequenceOf(peer));
    for (uint32_t sequence = compared_ + 1; sequence <= latest; ++sequence) {
      const std::optional<PeerStamp> own = StampOf(memory_.page(), sequence);
      const std::optional<PeerStamp> other = StampOf(*page, sequence);
      if (own && other && !Agree(*own, *other)) return Disagreement(peer, *own, *other);
    }
  }
  compared_ = std::max(compared_, all_came_to);
  return absl::OkStatus();
}

void NcclPeers::Fail(const absl::Status& reason) {
  Abort(reason);
  options_.log.Error("collective ", SequenceOf(rank()), " of ", group_.DebugString(),
                     " failed: ", reason.ToString(absl::StatusToStringMode::kWithNoExtraData));
}

absl::Status NcclPeers::MissingRanks(absl::StatusCode code, absl::string_view why) const {
  const uint32_t own = SequenceOf(rank());
  ErrorDetail detail{.reason = code == absl::StatusCode::kDeadlineExceeded
                                   ? ErrorReason::kRankMissing
                                   : ErrorReason::kRankLost};
  std::vector<std::string> missing, unseen;
  for (int peer = 0; peer < size(); ++peer) {
    const NcclPage* page = pages_[peer].load();
    if (page == nullptr) {
      unseen.push_back(absl::StrCat("rank ", Global(peer).value()));
    } else if (page->opening.load() == 0 || SequenceOf(peer) < own) {
      detail.ranks.push_back(Global(peer));
      missing.push_back(absl::StrCat("rank ", Global(peer).value(), " (group rank ", peer,
                                     ", at collective ", SequenceOf(peer), ")"));
    }
  }
  const std::string culprits =
      !missing.empty() ? absl::StrJoin(missing, ", ")
      : unseen.empty() ? "all ranks have come, but NCCL brings nothing"
                       : absl::StrCat("of other hosts, one of ", absl::StrJoin(unseen, ", "));
  return MakeError(
      code, absl::StrCat(why, " in collective ", own, " of ", group_.DebugString(), ": ", culprits),
      detail);
}

absl::Status NcclPeers::Disagreement(int peer, const PeerStamp& own, const PeerStamp& other) const {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("ranks disagree on collective ", own.sequence, " of ", group_.DebugString(),
                   ": rank ", Global(rank()).value(), " has ", FromDevice(own).DebugString(),
                   ", rank ", Global(peer).value(), " has ", FromDevice(other).DebugString()),
      {.reason = ErrorReason::kDisagreement, .ranks = {Global(rank()), Global(peer)}});
}

absl::Status NcclPeers::Left(int peer) const {
  return MakeError(absl::StatusCode::kUnavailable,
                   absl::StrCat("rank ", Global(peer).value(), " left ", group_.DebugString(),
                                " before collective ", SequenceOf(rank())),
                   {.reason = ErrorReason::kRankLost, .ranks = {Global(peer)}});
}

void NcclPeers::Abort(const absl::Status& reason) {
  const absl::Status status = reason.ok() ? absl::AbortedError("aborted") : reason;
  // The own page first: a rank that is to open later finds it there.
  memory_.page().abort.Raise(status);
  for (int peer = 0; peer < size(); ++peer) {
    NcclPage* page = pages_[peer].load();
    if (page != nullptr && peer != rank()) page->abort.Raise(status);
  }
  if (comm_.has_value()) comm_->Abort();
}

}  // namespace muster
