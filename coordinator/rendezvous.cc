#include "coordinator/rendezvous.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr size_t kMaxKeyBytes = 128;
constexpr size_t kMaxValueBytes = 1 << 20;
constexpr size_t kMaxMeetings = 4096;
constexpr size_t kMaxEpochBytes = 256 << 20;
constexpr size_t kMaxNamed = 8;
constexpr absl::Duration kMaxTimeout = absl::Minutes(10);

absl::Status CheckPlace(const MeetingPlace& place) {
  if (!place.key.empty() && place.key.size() <= kMaxKeyBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("rendezvous key has ", place.key.size(),
                                                 " bytes; it can have 1 to ", kMaxKeyBytes));
}

absl::Status CheckTimeout(absl::Duration timeout) {
  if (timeout > absl::ZeroDuration() && timeout <= kMaxTimeout) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("rendezvous timeout is ", absl::FormatDuration(timeout),
                   "; it must be positive and at most ", absl::FormatDuration(kMaxTimeout)));
}

absl::Status Stale(const MeetingPlace& place, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("epoch ", place.epoch.value(), " of replica ", place.replica.value(), " ", why),
      {.reason = ErrorReason::kStaleEpoch, .epoch = place.epoch});
}

absl::StatusOr<const GroupSpec*> FindGroup(const Topology& topology, GroupId id) {
  for (const GroupSpec& group : topology.groups) {
    if (group.id == id) return &group;
  }
  return absl::InvalidArgumentError(absl::StrCat("epoch ", topology.epoch.value(), " of replica ",
                                                 topology.replica.value(), " has no group with id ",
                                                 DigestString(id.value())));
}

absl::Status CheckHolder(const MeetingPlace& place, const RankPlacement& rank) {
  if (place.worker_id.empty() || place.worker_id == rank.worker_id) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      "the certificate is that of worker/", place.worker_id, "; rank ", rank.rank.value(),
      " of epoch ", place.epoch.value(), " is held by worker ", rank.worker_id));
}

const RankPlacement& PlacementOf(const Topology& topology, GlobalRank rank) {
  return topology.ranks[static_cast<size_t>(rank.value())];
}

// What the others of the epoch are told when a rank reports a failure of its own.
absl::Status RankFailure(const Topology& topology, const RankPlacement& rank,
                         const absl::Status& reported) {
  ErrorDetail detail = DetailOf(reported);
  if (detail.ranks.empty()) {
    detail.reason = ErrorReason::kRankFailed;
    detail.ranks = {rank.rank};
    detail.workers = {rank.worker_id};
  }
  detail.epoch = topology.epoch;
  return MakeError(absl::StatusCode::kAborted,
                   absl::StrCat("rank ", rank.rank.value(), " (worker ", rank.worker_id,
                                ") failed: ", reported.message()),
                   detail);
}

}  // namespace

void RendezvousBoard::BeginEpoch(const Topology& topology) {
  absl::MutexLock lock(&mu_);
  boards_[{topology.replica, topology.epoch}].topology = topology;
}

void RendezvousBoard::FailEpoch(ReplicaIndex replica, Epoch epoch, const absl::Status& reason) {
  Completions completions;
  {
    absl::MutexLock lock(&mu_);
    const auto found = boards_.find({replica, epoch});
    if (found != boards_.end()) FailLocked(found->second, reason, completions);
  }
  Run(std::move(completions));
}

void RendezvousBoard::RetireEpoch(ReplicaIndex replica, Epoch epoch) {
  Completions completions;
  {
    absl::MutexLock lock(&mu_);
    const auto found = boards_.find({replica, epoch});
    if (found == boards_.end()) return;
    FailLocked(found->second, Stale({.replica = replica, .epoch = epoch}, "is over"), completions);
    boards_.erase(found);
  }
  Run(std::move(completions));
}

void RendezvousBoard::AllGather(const AllGatherCall& call, GatherDone done) {
  Completions completions;
  {
    absl::MutexLock lock(&mu_);
    const absl::Status joined = Join(call, done, completions);
    if (!joined.ok()) completions.emplace_back(std::move(done), joined);
  }
  Run(std::move(completions));
}

absl::Status RendezvousBoard::Join(const AllGatherCall& call, GatherDone& done,
                                   Completions& completions) {
  MUSTER_RETURN_IF_ERROR(CheckPlace(call.place));
  MUSTER_RETURN_IF_ERROR(CheckTimeout(call.timeout));
  MUSTER_ASSIGN_OR_RETURN(EpochBoard * board, FindBoard(call.place));
  MUSTER_ASSIGN_OR_RETURN(const GroupSpec* group, FindGroup(board->topology, call.place.group));
  const int size = static_cast<int>(group->ranks.size());
  if (call.rank.value() < 0 || call.rank.value() >= size) {
    return absl::InvalidArgumentError(absl::StrCat("group rank is ", call.rank.value(), "; ",
                                                   group->DebugString(), " has ", size, " ranks"));
  }
  const auto index = static_cast<size_t>(call.rank.value());
  const RankPlacement& caller = PlacementOf(board->topology, group->ranks[index]);
  if (caller.incarnation != call.place.incarnation) {
    return Stale(call.place, absl::StrCat("has rank ", caller.rank.value(),
                                          " on another process of worker ", caller.worker_id));
  }
  MUSTER_RETURN_IF_ERROR(CheckHolder(call.place, caller));
  if (!call.contribution.ok()) {
    FailLocked(*board, RankFailure(board->topology, caller, call.contribution.status()),
               completions);
    return board->failure;
  }
  MUSTER_ASSIGN_OR_RETURN(Meeting * meeting,
                          FindMeeting(*board, *group, MeetingKind::kGather, call.place.key));
  MUSTER_RETURN_IF_ERROR(meeting->failure);
  MUSTER_RETURN_IF_ERROR(Contribute(*board, *meeting, index, *call.contribution));
  Settle(*meeting, call.timeout, done, completions);
  return absl::OkStatus();
}

absl::Status RendezvousBoard::Publish(const MeetingPlace& place, const std::string& value) {
  Completions completions;
  absl::Status published = [&]() -> absl::Status {
    absl::MutexLock lock(&mu_);
    MUSTER_RETURN_IF_ERROR(CheckPlace(place));
    MUSTER_ASSIGN_OR_RETURN(EpochBoard * board, FindBoard(place));
    MUSTER_ASSIGN_OR_RETURN(const GroupSpec* group, FindGroup(board->topology, place.group));
    MUSTER_ASSIGN_OR_RETURN(Meeting * meeting,
                            FindMeeting(*board, *group, MeetingKind::kPublished, place.key));
    if (meeting->result != nullptr && meeting->result->front() != value) {
      return absl::AlreadyExistsError(
          absl::StrCat("'", place.key, "' has been published with another value"));
    }
    MUSTER_RETURN_IF_ERROR(Contribute(*board, *meeting, 0, value));
    FinishMeeting(*meeting, meeting->result, completions);
    return absl::OkStatus();
  }();
  Run(std::move(completions));
  return published;
}

void RendezvousBoard::Await(const MeetingPlace& place, absl::Duration timeout, GatherDone done) {
  Completions completions;
  {
    absl::MutexLock lock(&mu_);
    const absl::Status joined = JoinAwait(place, timeout, done, completions);
    if (!joined.ok()) completions.emplace_back(std::move(done), joined);
  }
  Run(std::move(completions));
}

absl::Status RendezvousBoard::JoinAwait(const MeetingPlace& place, absl::Duration timeout,
                                        GatherDone& done, Completions& completions) {
  MUSTER_RETURN_IF_ERROR(CheckPlace(place));
  MUSTER_RETURN_IF_ERROR(CheckTimeout(timeout));
  MUSTER_ASSIGN_OR_RETURN(EpochBoard * board, FindBoard(place));
  MUSTER_ASSIGN_OR_RETURN(const GroupSpec* group, FindGroup(board->topology, place.group));
  MUSTER_ASSIGN_OR_RETURN(Meeting * meeting,
                          FindMeeting(*board, *group, MeetingKind::kPublished, place.key));
  Settle(*meeting, timeout, done, completions);
  return absl::OkStatus();
}

void RendezvousBoard::Tick() {
  Completions completions;
  {
    absl::MutexLock lock(&mu_);
    const absl::Time now = clock_.Now();
    for (auto& [id, board] : boards_) {
      for (auto& [key, meeting] : board.meetings) {
        FinishLate(board, key, meeting, now, completions);
      }
    }
  }
  Run(std::move(completions));
}

void RendezvousBoard::FinishLate(const EpochBoard& board, const MeetingKey& key, Meeting& meeting,
                                 absl::Time now, Completions& completions) const {
  const auto late = std::stable_partition(meeting.waiters.begin(), meeting.waiters.end(),
                                          [&](const Waiter& w) { return w.deadline > now; });
  if (late == meeting.waiters.end()) return;
  const absl::Status missing = DescribeMissing(board, key, meeting, late->timeout);
  if (key.kind == MeetingKind::kGather) {
    meeting.failure = missing;
    return FinishMeeting(meeting, missing, completions);
  }
  for (auto w = late; w != meeting.waiters.end(); ++w) {
    completions.emplace_back(std::move(w->done), missing);
  }
  meeting.waiters.erase(late, meeting.waiters.end());
}

void RendezvousBoard::Close(const absl::Status& reason) {
  Completions completions;
  {
    absl::MutexLock lock(&mu_);
    closed_ = reason;
    for (auto& [id, board] : boards_) FailLocked(board, reason, completions);
  }
  Run(std::move(completions));
}

size_t RendezvousBoard::waiting() const {
  absl::MutexLock lock(&mu_);
  size_t count = 0;
  for (const auto& [id, board] : boards_) {
    for (const auto& [key, meeting] : board.meetings) count += meeting.waiters.size();
  }
  return count;
}

void RendezvousBoard::Run(Completions completions) {
  for (auto& completion : completions) completion.first(std::move(completion.second));
}

void RendezvousBoard::FinishMeeting(Meeting& meeting, const absl::StatusOr<GatheredValues>& result,
                                    Completions& completions) {
  for (Waiter& waiter : meeting.waiters) completions.emplace_back(std::move(waiter.done), result);
  meeting.waiters.clear();
}

void RendezvousBoard::FailLocked(EpochBoard& board, const absl::Status& reason,
                                 Completions& completions) {
  if (board.failure.ok()) board.failure = reason;
  for (auto& [key, meeting] : board.meetings) FinishMeeting(meeting, board.failure, completions);
}

absl::StatusOr<RendezvousBoard::EpochBoard*> RendezvousBoard::FindBoard(const MeetingPlace& place) {
  MUSTER_RETURN_IF_ERROR(closed_);
  const auto found = boards_.find({place.replica, place.epoch});
  if (found == boards_.end()) return Stale(place, "is not held here");
  EpochBoard& board = found->second;
  const auto& ranks = board.topology.ranks;
  const auto member = std::find_if(ranks.begin(), ranks.end(), [&](const RankPlacement& rank) {
    return rank.incarnation == place.incarnation;
  });
  if (member == ranks.end()) return Stale(place, "has no rank on the calling process");
  MUSTER_RETURN_IF_ERROR(CheckHolder(place, *member));
  MUSTER_RETURN_IF_ERROR(board.failure);
  return &board;
}

absl::StatusOr<RendezvousBoard::Meeting*> RendezvousBoard::FindMeeting(EpochBoard& board,
                                                                       const GroupSpec& group,
                                                                       MeetingKind kind,
                                                                       const std::string& key) {
  const MeetingKey id{group.id, kind, key};
  const auto found = board.meetings.find(id);
  if (found != board.meetings.end()) return &found->second;
  if (board.meetings.size() >= kMaxMeetings) {
    return absl::ResourceExhaustedError(absl::StrCat("epoch ", board.topology.epoch.value(),
                                                     " has used ", kMaxMeetings,
                                                     " rendezvous keys, the most it can"));
  }
  Meeting& meeting = board.meetings[id];
  meeting.missing = kind == MeetingKind::kGather ? group.ranks.size() : 1;
  meeting.values.resize(meeting.missing);
  return &meeting;
}

absl::Status RendezvousBoard::Contribute(EpochBoard& board, Meeting& meeting, size_t index,
                                         const std::string& value) {
  if (value.size() > kMaxValueBytes) {
    return absl::InvalidArgumentError(absl::StrCat("rendezvous value has ", value.size(),
                                                   " bytes; it can have ", kMaxValueBytes));
  }
  if (meeting.result != nullptr || meeting.values[index].has_value()) {
    return CheckSame(meeting, index, value);
  }
  if (board.bytes + value.size() > kMaxEpochBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("epoch ", board.topology.epoch.value(),
                                                     " has gathered ", kMaxEpochBytes,
                                                     " bytes, the most it can"));
  }
  board.bytes += value.size();
  meeting.values[index] = value;
  if (--meeting.missing > 0) return absl::OkStatus();
  auto values = std::make_shared<std::vector<std::string>>();
  for (auto& contributed : meeting.values) values->push_back(*std::move(contributed));
  meeting.values.clear();
  meeting.result = std::move(values);
  return absl::OkStatus();
}

absl::Status RendezvousBoard::CheckSame(const Meeting& meeting, size_t index,
                                        const std::string& value) {
  const std::string& first =
      meeting.result != nullptr ? (*meeting.result)[index] : *meeting.values[index];
  if (first == value) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("group rank ", index, " has contributed another value under this key"));
}

void RendezvousBoard::Settle(Meeting& meeting, absl::Duration timeout, GatherDone& done,
                             Completions& completions) {
  meeting.waiters.push_back({clock_.Now() + timeout, timeout, std::move(done)});
  if (meeting.result != nullptr) FinishMeeting(meeting, meeting.result, completions);
}

absl::Status RendezvousBoard::DescribeMissing(const EpochBoard& board, const MeetingKey& key,
                                              const Meeting& meeting,
                                              absl::Duration timeout) const {
  const Topology& topology = board.topology;
  const std::string where =
      absl::StrCat("epoch ", topology.epoch.value(), " of replica ", topology.replica.value());
  ErrorDetail detail{.reason = ErrorReason::kRankMissing, .epoch = topology.epoch};
  if (key.kind == MeetingKind::kPublished) {
    return MakeError(absl::StatusCode::kDeadlineExceeded,
                     absl::StrCat("nobody published '", key.key, "' in ", where, " within ",
                                  absl::FormatDuration(timeout)),
                     detail);
  }
  const GroupSpec& group = **FindGroup(topology, key.group);
  std::vector<std::string> missing;
  for (size_t i = 0; i < meeting.values.size(); ++i) {
    if (meeting.values[i].has_value()) continue;
    const RankPlacement& rank = PlacementOf(topology, group.ranks[i]);
    const WorkerNote note = describe_(rank.worker_id);
    if (detail.phase.empty()) detail.phase = note.phase;
    detail.ranks.push_back(rank.rank);
    detail.workers.push_back(rank.worker_id);
    if (missing.size() >= kMaxNamed) continue;
    missing.push_back(absl::StrCat("rank ", rank.rank.value(), " (worker ", rank.worker_id, ", ",
                                   note.text, ")"));
  }
  const size_t more = detail.ranks.size() - missing.size();
  return MakeError(
      absl::StatusCode::kDeadlineExceeded,
      absl::StrCat("all-gather '", key.key, "' of ", group.DebugString(), " in ", where, " waited ",
                   absl::FormatDuration(timeout), " for ", absl::StrJoin(missing, ", "),
                   more > 0 ? absl::StrCat(" and ", more, " more") : ""),
      detail);
}

}  // namespace muster
