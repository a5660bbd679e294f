#include "worker/collective/shm/shm_peers.h"

#include <algorithm>
#include <new>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/spin_wait.h"
#include "base/status_macros.h"
#include "worker/device/cpu/futex.h"

namespace muster {
namespace {

// Ranks of a step drift apart by less than this.
constexpr int64_t kSpinNs = 200'000;
// A sleeper looks around this often, so that a lost wake costs no more.
constexpr int64_t kSleepUs = 10'000;
constexpr uint64_t kLayoutVersion = 1;

// Ticks wrap around.
bool Reached(const ShmArrival& arrival, uint32_t tick, std::memory_order order) {
  return static_cast<int32_t>(arrival.tick.load(order) - tick) >= 0;
}

}  // namespace

ShmPeers::ShmPeers(const Group& group, std::byte* own, const Options& options)
    : group_(group), options_(options), size_(group.size()), rank_(group.rank().value()) {
  Digest digest;
  digest.Add(kLayoutVersion);
  digest.Add(options.slab_bytes);
  for (GlobalRank rank : group.spec().ranks) digest.Add(static_cast<uint64_t>(rank.value()));
  layout_ = digest.value();
  const uint64_t nonce = *reinterpret_cast<const uint64_t*>(own);
  ShmHeader* header = new (own) ShmHeader;
  header->nonce = nonce;
  header->layout = layout_;
  slabs_[rank_] = own + kShmPage;
  headers_[rank_].store(header);
}

ShmPeers::~ShmPeers() {
  own().departed.store(1);
  FutexWakeAll(own().arrival.tick, FutexScope::kShared);
}

absl::Status ShmPeers::Attach(const std::vector<std::byte*>& segments) {
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_) continue;
    ShmHeader* header = std::launder(reinterpret_cast<ShmHeader*>(segments[peer]));
    if (header->layout != layout_) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition,
          absl::StrCat("rank ", group_.ToGlobal(GroupRank(peer)).value(), " of ",
                       group_.DebugString(), " has another layout of shared memory: ",
                       DigestString(header->layout), ", here ", DigestString(layout_)),
          {.reason = ErrorReason::kDisagreement, .ranks = {group_.ToGlobal(GroupRank(peer))}});
    }
    slabs_[peer] = segments[peer] + kShmPage;
    headers_[peer].store(header);
  }
  return own().abort.raised() ? own().abort.Reason() : absl::OkStatus();
}

absl::Status ShmPeers::Exchange(const CollectiveStamp& stamp) {
  if (own().abort.raised()) return own().abort.Reason();
  recorder_.Begin(tick_ + 1, stamp);
  Arrive(stamp);
  for (int i = 1; i < size_; ++i) {
    const int peer = rank_ + i < size_ ? rank_ + i : rank_ + i - size_;
    if (!Reached(header(peer).arrival, tick_ + 1, std::memory_order_acquire)) {
      MUSTER_RETURN_IF_ERROR(Await(peer));
    }
    if (header(peer).arrival.stamps[(tick_ + 1) & 1].Load() != stamp)
      return Fail(Verify(peer, stamp));
  }
  ++tick_;
  recorder_.End(FlightRecorder::State::kDone);
  return absl::OkStatus();
}

void ShmPeers::Arrive(const CollectiveStamp& stamp) {
  ShmArrival& arrival = own().arrival;
  arrival.stamps[(tick_ + 1) & 1].Store(stamp);
  // Sequentially consistent, as is a sleeper's count: either it sees the tick or we see it.
  arrival.tick.store(tick_ + 1);
  if (arrival.sleepers.load() != 0) FutexWakeAll(arrival.tick, FutexScope::kShared);
}

absl::Status ShmPeers::Await(int peer) {
  const int64_t begun_ns = SteadyNowNs();
  const absl::Status arrived =
      AwaitUntil(peer, begun_ns + absl::ToInt64Nanoseconds(options_.wait_timeout));
  if (options_.waited_ns != nullptr) {
    options_.waited_ns->Add(static_cast<uint64_t>(SteadyNowNs() - begun_ns));
  }
  return arrived;
}

absl::Status ShmPeers::AwaitUntil(int peer, int64_t deadline_ns) {
  const ShmArrival& arrival = header(peer).arrival;
  const ShmAbort& abort = own().abort;
  const bool ended = SpinUntil(kSpinNs, [&] {
    return Reached(arrival, tick_ + 1, std::memory_order_acquire) || abort.raised();
  });
  if (ended && Reached(arrival, tick_ + 1, std::memory_order_acquire)) return absl::OkStatus();
  return SleepUntilArrival(peer, deadline_ns);
}

absl::Status ShmPeers::SleepUntilArrival(int peer, int64_t deadline_ns) {
  ShmHeader& theirs = header(peer);
  while (true) {
    theirs.arrival.sleepers.fetch_add(1);
    const bool departed = theirs.departed.load() != 0;
    const uint32_t seen = theirs.arrival.tick.load();
    const bool reached = static_cast<int32_t>(seen - (tick_ + 1)) >= 0;
    const int64_t left_us = (deadline_ns - SteadyNowNs()) / 1000;
    if (!reached && !departed && left_us > 0 && !own().abort.raised()) {
      FutexWait(theirs.arrival.tick, seen, FutexScope::kShared, std::min(left_us + 1, kSleepUs));
    }
    theirs.arrival.sleepers.fetch_sub(1);
    if (Reached(theirs.arrival, tick_ + 1, std::memory_order_acquire)) return absl::OkStatus();
    if (own().abort.raised()) return Fail(own().abort.Reason());
    if (departed) return Fail(DepartedRank(peer));
    if (left_us <= 0) return Fail(MissingRanks(peer));
  }
}

absl::Status ShmPeers::Verify(int peer, const CollectiveStamp& stamp) const {
  const CollectiveStamp theirs = header(peer).arrival.stamps[(tick_ + 1) & 1].Load();
  const GlobalRank self = group_.ToGlobal(group_.rank());
  const GlobalRank other = group_.ToGlobal(GroupRank(peer));
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("ranks disagree on collective ", tick_ + 1, " of ", group_.DebugString(),
                   ": rank ", self.value(), " has ", stamp.DebugString(), ", rank ", other.value(),
                   " has ", theirs.DebugString()),
      {.reason = ErrorReason::kDisagreement, .ranks = {self, other}});
}

absl::Status ShmPeers::DepartedRank(int peer) const {
  const GlobalRank rank = group_.ToGlobal(GroupRank(peer));
  return MakeError(absl::StatusCode::kUnavailable,
                   absl::StrCat("rank ", rank.value(), " left ", group_.DebugString(),
                                " before collective ", tick_ + 1),
                   {.reason = ErrorReason::kRankLost, .ranks = {rank}});
}

absl::Status ShmPeers::MissingRanks(int awaited) const {
  ErrorDetail detail{.reason = ErrorReason::kRankMissing};
  std::vector<std::string> missing;
  for (int peer = 0; peer < size_; ++peer) {
    const ShmArrival& arrival = header(peer).arrival;
    if (peer != awaited && Reached(arrival, tick_ + 1, std::memory_order_acquire)) continue;
    const GlobalRank rank = group_.ToGlobal(GroupRank(peer));
    const uint32_t tick = arrival.tick.load();
    detail.ranks.push_back(rank);
    missing.push_back(absl::StrCat("rank ", rank.value(), " (group rank ", peer, ", at collective ",
                                   tick, ": ", arrival.stamps[tick & 1].Load().DebugString(), ")"));
  }
  return MakeError(
      absl::StatusCode::kDeadlineExceeded,
      absl::StrCat("missing after ", absl::FormatDuration(options_.wait_timeout), " in collective ",
                   tick_ + 1, " of ", group_.DebugString(), ": ", absl::StrJoin(missing, ", "),
                   "; last here:\n", recorder_.DebugString(4)),
      detail);
}

absl::Status ShmPeers::Fail(const absl::Status& reason) {
  recorder_.End(FlightRecorder::State::kFailed);
  Abort(reason);
  options_.log.Error("collective ", tick_ + 1, " of ", group_.DebugString(),
                     " failed: ", reason.ToString(absl::StatusToStringMode::kWithNoExtraData),
                     "\nflight recorder:\n", recorder_.DebugString());
  return own().abort.Reason();
}

void ShmPeers::Abort(const absl::Status& reason) {
  const absl::Status status = reason.ok() ? absl::AbortedError("aborted") : reason;
  // The own segment first: a rank that is to attach later finds it there.
  own().abort.Raise(status);
  for (int rank = 0; rank < size_; ++rank) {
    ShmHeader* header = headers_[rank].load();
    if (header == nullptr) continue;
    if (rank != rank_) header->abort.Raise(status);
    FutexWakeAll(header->arrival.tick, FutexScope::kShared);
  }
}

}  // namespace muster
