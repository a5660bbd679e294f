#include "tests/support/local_rendezvous.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster::testing {
namespace {

absl::Status MissingRanks(const Group& group, absl::string_view key, absl::Duration timeout,
                          const std::map<GlobalRank, std::string>& arrived) {
  ErrorDetail detail{.reason = ErrorReason::kRankMissing};
  std::vector<int> missing;
  for (GlobalRank rank : group.spec().ranks) {
    if (arrived.count(rank) != 0) continue;
    detail.ranks.push_back(rank);
    missing.push_back(rank.value());
  }
  return MakeError(absl::StatusCode::kDeadlineExceeded,
                   absl::StrCat("all-gather '", key, "' of ", group.DebugString(), ": ",
                                missing.size() == 1 ? "rank " : "ranks ",
                                absl::StrJoin(missing, ", "), missing.size() == 1 ? " is" : " are",
                                " missing after ", absl::FormatDuration(timeout)),
                   detail);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> LocalRendezvousBoard::AllGather(const Arrival& arrival) {
  const GlobalRank self = arrival.group.ToGlobal(arrival.group.rank());
  absl::MutexLock lock(&mu_);
  EpochState& state = epochs_[arrival.epoch];
  if (!arrival.cancelled.ok()) return arrival.cancelled;
  MUSTER_RETURN_IF_ERROR(FailureOf(state));
  const auto at = state.gathers.try_emplace({arrival.group.id(), std::string(arrival.key)}).first;
  Gather& gather = at->second;
  MUSTER_RETURN_IF_ERROR(gather.failure);
  if (!gather.values.try_emplace(self, arrival.value).second) {
    return absl::AlreadyExistsError(absl::StrCat("rank ", self.value(), " has been at '",
                                                 arrival.key, "' of ", arrival.group.DebugString(),
                                                 " before"));
  }
  changed_.SignalAll();
  MUSTER_RETURN_IF_ERROR(Await(arrival, state, gather));
  std::vector<std::string> values;
  for (GlobalRank rank : arrival.group.spec().ranks) values.push_back(gather.values.at(rank));
  return values;
}

absl::Status LocalRendezvousBoard::FailureOf(const EpochState& state) const {
  return state.failure.ok() ? lost_ : state.failure;
}

absl::Status LocalRendezvousBoard::Await(const Arrival& arrival, const EpochState& state,
                                         Gather& gather) {
  const absl::Time deadline = absl::Now() + arrival.timeout;
  const size_t all = arrival.group.spec().ranks.size();
  bool expired = false;
  while (true) {
    if (gather.values.size() == all) return absl::OkStatus();
    MUSTER_RETURN_IF_ERROR(FailureOf(state));
    MUSTER_RETURN_IF_ERROR(gather.failure);
    if (!arrival.cancelled.ok()) return arrival.cancelled;
    if (expired) break;
    expired = changed_.WaitWithDeadline(&mu_, deadline);
  }
  gather.failure = MissingRanks(arrival.group, arrival.key, arrival.timeout, gather.values);
  changed_.SignalAll();
  return gather.failure;
}

void LocalRendezvousBoard::Fail(Epoch epoch, const absl::Status& reason) {
  absl::MutexLock lock(&mu_);
  EpochState& state = epochs_[epoch];
  if (state.failure.ok()) state.failure = reason;
  changed_.SignalAll();
}

void LocalRendezvousBoard::Lose(GlobalRank rank, absl::string_view why) {
  absl::MutexLock lock(&mu_);
  if (!lost_.ok()) return;
  lost_ = MakeError(absl::StatusCode::kUnavailable,
                    absl::StrCat("rank ", rank.value(), " is lost: ", why),
                    {.reason = ErrorReason::kRankLost, .ranks = {rank}});
  changed_.SignalAll();
}

absl::StatusOr<std::vector<std::string>> LocalRendezvous::AllGather(const Group& group,
                                                                    absl::string_view key,
                                                                    absl::string_view value,
                                                                    absl::Duration timeout) {
  return board_.AllGather({epoch_, group, key, value, timeout, cancelled_});
}

void LocalRendezvous::Fail(const Group& group, const absl::Status& reason) {
  const GlobalRank self = group.ToGlobal(group.rank());
  ErrorDetail detail = DetailOf(reason);
  if (detail.reason == ErrorReason::kUnspecified) detail.reason = ErrorReason::kRankFailed;
  if (detail.ranks.empty()) detail.ranks = {self};
  board_.Fail(epoch_, MakeError(absl::StatusCode::kAborted,
                                absl::StrCat("rank ", self.value(), " failed: ", reason.message()),
                                detail));
}

void LocalRendezvous::Cancel(const absl::Status& reason) {
  absl::MutexLock lock(&board_.mu_);
  if (cancelled_.ok()) cancelled_ = reason;
  board_.changed_.SignalAll();
}

absl::StatusOr<std::vector<std::string>> FaultyRendezvous::AllGather(const Group& group,
                                                                     absl::string_view key,
                                                                     absl::string_view value,
                                                                     absl::Duration timeout) {
  if (!Hits(key)) return inner_.AllGather(group, key, value, timeout);
  switch (plan_.fault) {
    case Fault::kFails:
      return plan_.status;
    case Fault::kNeverArrives:
      // Where nobody else goes, a failure of the epoch still ends the wait.
      return inner_.AllGather(group, absl::StrCat(key, " (strayed)"), value, timeout);
    case Fault::kLosesAnswer:
      MUSTER_RETURN_IF_ERROR(inner_.AllGather(group, key, value, timeout).status());
      return plan_.status;
    case Fault::kAlters:
      return inner_.AllGather(group, key, plan_.value, timeout);
  }
  return absl::InternalError("no such fault");
}

bool FaultyRendezvous::Hits(absl::string_view key) {
  if (!plan_.key.empty() && plan_.key != std::string(key)) return false;
  absl::MutexLock lock(&mu_);
  return ++calls_ == plan_.call;
}

}  // namespace muster::testing
