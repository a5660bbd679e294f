#include "worker/collective/collective_set.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "worker/collective/self_test.h"
#include "worker/collective/tallied_collectives.h"
#include "worker/collective/warmup_vote.h"

namespace muster {
namespace {

// Where the deadline has passed: long enough to learn who is missing.
constexpr absl::Duration kShortestWait = absl::Milliseconds(1);

}  // namespace

CollectiveSet::CollectiveSet(std::vector<Group> groups, CollectiveBackend& backend, Device& device,
                             Rendezvous& rendezvous, Ledger& ledger, Options options)
    : groups_(std::move(groups)),
      backend_(backend),
      device_(device),
      rendezvous_(rendezvous),
      ledger_(ledger),
      options_(std::move(options)) {}

CollectiveSet::~CollectiveSet() { GiveBack(); }

absl::Status CollectiveSet::Warmup(const std::vector<CollectiveUse>& uses, absl::Duration timeout) {
  if (std::exchange(started_, true)) {
    return absl::FailedPreconditionError(
        sealed_ ? "the collectives of this epoch are sealed: nothing can be added"
                : "the collectives of this epoch have been warmed up before");
  }
  deadline_ = Clock::Real().Now() + timeout;
  absl::Status status = RunPhases(uses);
  if (status.ok()) {
    sealed_ = true;
    return status;
  }
  {
    // An abort comes before what it led to.
    absl::MutexLock lock(&mu_);
    if (!aborted_.ok()) status = aborted_;
  }
  GiveBack();
  ErrorDetail detail = DetailOf(status);
  if (detail.phase.empty()) detail.phase = phase_;
  return MakeError(status.code(), absl::StrCat(phase_, ": ", status.message()), detail);
}

absl::Status CollectiveSet::RunPhases(const std::vector<CollectiveUse>& uses) {
  if (groups_.empty()) return absl::InvalidArgumentError("a rank without groups");
  std::vector<GroupSpec> specs;
  for (const Group& group : groups_) specs.push_back(group.spec());
  const GlobalRank self = groups_[0].ToGlobal(groups_[0].rank());
  auto plans = PlanWorkspaces(specs, self, uses);
  if (!plans.ok()) return FailOthers(plans.status());
  plans_ = *std::move(plans);
  EnterPhase("warmup/probe");
  const absl::Status probed = Probe();
  EnterPhase("warmup/vote");
  MUSTER_RETURN_IF_ERROR(Vote(probed));
  EnterPhase("warmup/allocate");
  MakeMembers();
  MUSTER_RETURN_IF_ERROR(ExchangeAndOpen());
  EnterPhase("warmup/self-test");
  MUSTER_RETURN_IF_ERROR(SelfTest(uses));
  EnterPhase("warmup/acknowledge");
  return Acknowledge();
}

absl::Status CollectiveSet::Probe() {
  for (size_t i = 0; i < plans_.size(); ++i) {
    MUSTER_ASSIGN_OR_RETURN(auto endpoint, backend_.Allocate(GroupOf(i), plans_[i], ledger_));
    absl::MutexLock lock(&mu_);
    if (!aborted_.ok()) return aborted_;
    endpoints_.push_back(std::move(endpoint));
  }
  return absl::OkStatus();
}

absl::Status CollectiveSet::Vote(const absl::Status& probed) {
  WarmupVote vote{.status = probed, .free_bytes = device_.Report().free_bytes};
  for (const WorkspacePlan& plan : plans_) vote.wanted_bytes += plan.slab_bytes * 2;
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> votes, Gather(vote.Encode()));
  return CountVotes(groups_[0], votes);
}

void CollectiveSet::MakeMembers() {
  for (const Group& group : groups_) {
    const auto plan = std::find_if(
        plans_.begin(), plans_.end(),
        [&](const WorkspacePlan& candidate) { return candidate.ranks == group.spec().ranks; });
    const size_t index = static_cast<size_t>(plan - plans_.begin());
    members_.push_back({group, index,
                        Tallied(Endpoint(index).MakeWorkspace(group, options_.fusion), tally_),
                        Tallied(Endpoint(index).MakeCommunicator(group), tally_)});
  }
}

absl::Status CollectiveSet::ExchangeAndOpen() {
  EnterPhase("warmup/exchange");
  std::vector<std::string> handles;
  for (size_t i = 0; i < plans_.size(); ++i) {
    handles.push_back(absl::WebSafeBase64Escape(Endpoint(i).Handle()));
  }
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> lists,
                          Gather(absl::StrJoin(handles, ";")));
  EnterPhase("warmup/open");
  // A peer whose memory is gone has failed, and the barrier says why: so nobody stops here.
  const WarmupVote vote{.status = Open(lists)};
  EnterPhase("warmup/barrier");
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> votes, Gather(vote.Encode()));
  MUSTER_RETURN_IF_ERROR(CountVotes(groups_[0], votes));
  for (size_t i = 0; i < plans_.size(); ++i) Endpoint(i).StopExporting();
  return absl::OkStatus();
}

absl::Status CollectiveSet::Open(const std::vector<std::string>& lists) {
  for (size_t i = 0; i < plans_.size(); ++i) {
    MUSTER_ASSIGN_OR_RETURN(std::vector<std::string> handles, EntriesOf(i, lists));
    for (std::string& handle : handles) {
      std::string decoded;
      if (!absl::WebSafeBase64Unescape(handle, &decoded)) {
        return absl::InvalidArgumentError("a handle that cannot be decoded");
      }
      handle = std::move(decoded);
    }
    MUSTER_RETURN_IF_ERROR(Endpoint(i).Open(handles));
  }
  return absl::OkStatus();
}

absl::Status CollectiveSet::SelfTest(const std::vector<CollectiveUse>& uses) {
  std::vector<uint64_t> measured;
  const absl::Status tested = options_.exclusively([&]() -> absl::Status {
    MUSTER_ASSIGN_OR_RETURN(measured, TestAndMeasure(uses));
    return absl::OkStatus();
  });
  if (!tested.ok()) return FailOthers(tested);
  return AgreeOnTwoShotBytes(measured);
}

absl::StatusOr<std::vector<uint64_t>> CollectiveSet::TestAndMeasure(
    const std::vector<CollectiveUse>& uses) {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, device_.CreateStream());
  auto measured = TestAndMeasure(uses, *stream);
  // Whatever was enqueued before a failure uses memory that is given back now.
  if (!measured.ok()) stream->Synchronize().IgnoreError();
  return measured;
}

absl::StatusOr<std::vector<uint64_t>> CollectiveSet::TestAndMeasure(
    const std::vector<CollectiveUse>& uses, Stream& stream) {
  for (size_t i = 0; i < plans_.size(); ++i) {
    const SelfTestShape shape = SelfTestShape::For(plans_[i], uses);
    MUSTER_RETURN_IF_ERROR(RunSelfTest(device_, stream, GroupOf(i), Endpoint(i), shape, ledger_));
  }
  std::vector<uint64_t> measured;
  for (size_t i = 0; i < plans_.size(); ++i) {
    MUSTER_ASSIGN_OR_RETURN(measured.emplace_back(), Endpoint(i).MeasureTwoShotBytes(stream));
  }
  return measured;
}

absl::Status CollectiveSet::AgreeOnTwoShotBytes(const std::vector<uint64_t>& measured) {
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> lists,
                          Gather(absl::StrJoin(measured, ";")));
  for (size_t i = 0; i < plans_.size(); ++i) {
    auto entries = EntriesOf(i, lists);
    if (!entries.ok()) return FailOthers(entries.status());
    uint64_t least = ~uint64_t{0};
    for (const std::string& entry : *entries) {
      uint64_t bytes = 0;
      if (absl::SimpleAtoi(entry, &bytes)) least = std::min(least, bytes);
    }
    Endpoint(i).SetTwoShotBytes(least);
  }
  return absl::OkStatus();
}

absl::Status CollectiveSet::Acknowledge() {
  Digest own;
  own.Add(static_cast<uint64_t>(options_.fusion));
  for (const WorkspacePlan& plan : plans_) {
    own.Add(plan.tag);
    own.Add(plan.slab_bytes);
    own.Add(plan.ranks.size());
  }
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> digests,
                          Gather(DigestString(own.value())));
  for (size_t rank = 0; rank < digests.size(); ++rank) {
    if (digests[rank] == DigestString(own.value())) continue;
    const GlobalRank other = groups_[0].ToGlobal(GroupRank(static_cast<int>(rank)));
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("workspace layout differs: rank ",
                     groups_[0].ToGlobal(groups_[0].rank()).value(), " has ",
                     DigestString(own.value()), ", rank ", other.value(), " has ", digests[rank]),
        {.reason = ErrorReason::kDisagreement, .ranks = {other}});
  }
  layout_digest_ = own.value();
  absl::MutexLock lock(&mu_);
  return aborted_;
}

absl::StatusOr<Workspace*> CollectiveSet::workspace(GroupKind kind) const {
  for (const Member& member : members_) {
    if (sealed_ && member.group.kind() == kind) return member.workspace.get();
  }
  return absl::FailedPreconditionError(absl::StrCat("no workspace of ", GroupKindName(kind),
                                                    ": workspaces are made in warm-up only"));
}

std::vector<FusionReport> CollectiveSet::fusion() const {
  std::vector<FusionReport> reports;
  for (const Member& member : members_) {
    FusionReport report{.kind = member.group.kind(), .ranks = member.group.size()};
    if (report.ranks == 1) {
      report.why_not = "single_rank";
    } else if (options_.fusion == Fusion::kUnfused) {
      report.why_not = "flag";
    } else if (!Endpoint(member.endpoint).fuses()) {
      report.why_not = "nccl";
    }
    report.fused = report.why_not.empty();
    reports.push_back(std::move(report));
  }
  return reports;
}

absl::StatusOr<Communicator*> CollectiveSet::communicator(GroupKind kind) const {
  for (const Member& member : members_) {
    if (sealed_ && member.group.kind() == kind) return member.communicator.get();
  }
  return absl::FailedPreconditionError(absl::StrCat("no communicator of ", GroupKindName(kind),
                                                    ": communicators are made in warm-up only"));
}

void CollectiveSet::Abort(const absl::Status& reason) {
  absl::MutexLock lock(&mu_);
  if (!aborted_.ok()) return;
  aborted_ = reason.ok() ? absl::AbortedError("aborted") : reason;
  for (const auto& endpoint : endpoints_) endpoint->Abort(aborted_);
}

void CollectiveSet::EnterPhase(absl::string_view phase) {
  phase_ = std::string(phase);
  options_.on_phase(phase);
}

absl::Status CollectiveSet::FailOthers(const absl::Status& status) {
  rendezvous_.Fail(groups_[0], Annotate(status, phase_));
  Abort(status);
  return status;
}

absl::StatusOr<std::vector<std::string>> CollectiveSet::Gather(absl::string_view value) {
  const Group& all = groups_[0];
  if (all.size() == 1) return std::vector<std::string>{std::string(value)};
  return rendezvous_.AllGather(all, phase_, value,
                               std::max(deadline_ - Clock::Real().Now(), kShortestWait));
}

absl::StatusOr<std::vector<std::string>> CollectiveSet::EntriesOf(
    size_t index, const std::vector<std::string>& lists) const {
  std::vector<std::string> entries;
  for (GlobalRank rank : plans_[index].ranks) {
    MUSTER_ASSIGN_OR_RETURN(const GroupRank place, groups_[0].ToGroup(rank));
    const std::vector<std::string> list = absl::StrSplit(lists[place.value()], ';');
    if (list.size() != plans_.size()) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       absl::StrCat("rank ", rank.value(), " has ", list.size(),
                                    " workspaces, here it is ", plans_.size()),
                       {.reason = ErrorReason::kDisagreement, .ranks = {rank}});
    }
    entries.push_back(list[index]);
  }
  return entries;
}

const Group& CollectiveSet::GroupOf(size_t endpoint) const {
  return *std::find_if(groups_.begin(), groups_.end(), [&](const Group& group) {
    return group.spec().ranks == plans_[endpoint].ranks;
  });
}

CollectiveEndpoint& CollectiveSet::Endpoint(size_t index) const {
  absl::MutexLock lock(&mu_);
  return *endpoints_[index];
}

void CollectiveSet::GiveBack() {
  sealed_ = false;
  members_.clear();
  absl::MutexLock lock(&mu_);
  endpoints_.clear();
}

}  // namespace muster
