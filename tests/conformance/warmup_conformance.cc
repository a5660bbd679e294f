// What a CollectiveSet keeps to on every backend: one epoch built together, or not at all.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "tests/conformance/rank_harness.h"
#include "tests/support/local_rendezvous.h"
#include "worker/collective/partial.h"

namespace muster::testing {
namespace {

class WarmupConformance : public RanksConformance {};
INSTANTIATE_CONFORMANCE(WarmupConformance);

constexpr int kHidden = 48;

std::vector<CollectiveUse> Uses() {
  return {CollectiveUse::AllReduceRmsNorm(GroupKind::kStage, kHidden, 8),
          CollectiveUse::CpCombine(/*heads=*/4, /*head_dim=*/12, /*max_tokens=*/8)};
}

// One epoch as this rank sees it.
class EpochOfRank {
 public:
  EpochOfRank(RankHarness& rank, const ParallelConfig& config, Epoch epoch, Rendezvous& rendezvous)
      : rank_(rank) {
    std::vector<Group> groups;
    for (const GroupSpec& spec : DeriveGroups(config, epoch)) {
      absl::StatusOr<Group> group = Group::Create(spec, rank.context().rank);
      if (group.ok()) groups.push_back(*std::move(group));
    }
    set_ = std::make_unique<CollectiveSet>(
        std::move(groups), rank.collectives(), rank.device(), rendezvous, rank.ledger(),
        CollectiveSet::Options{
            .on_phase = [this](absl::string_view phase) { phases_.emplace_back(phase); }});
  }

  CollectiveSet& set() { return *set_; }
  std::string phases() const { return absl::StrJoin(phases_, " "); }
  absl::Status Warmup() { return set_->Warmup(Uses(), absl::Seconds(25)); }

  // Every rank contributes 2 to the power of itself; all must find the sum over the world.
  absl::Status Step() {
    const float own = static_cast<float>(1 << rank_.rank());
    MUSTER_ASSIGN_OR_RETURN(
        const Buffer partial,
        rank_.Upload(Encode(std::vector<float>(kHidden, own), DType::kFloat32)));
    MUSTER_ASSIGN_OR_RETURN(const Buffer sum, rank_.Allocate(partial.size()));
    MUSTER_ASSIGN_OR_RETURN(const Buffer norm, rank_.Allocate(partial.size()));
    MUSTER_ASSIGN_OR_RETURN(Workspace * workspace, set_->workspace(GroupKind::kStage));
    MUSTER_ASSIGN_OR_RETURN(auto reducer, Reducer<GroupKind::kStage>::Create(*workspace));
    MUSTER_RETURN_IF_ERROR(rank_.Execute([&] {
      return reducer.ReduceAddNorm(rank_.stream(),
                                   Partial<GroupKind::kStage>{partial.as<float>(), 1, kHidden},
                                   {.weight = partial.as<float>(),
                                    .residual_out = sum.as<float>(),
                                    .norm_out = norm.as<float>()});
    }));
    MUSTER_ASSIGN_OR_RETURN(const Bytes got, rank_.Download(sum, sum.size()));
    const float all = static_cast<float>((1 << rank_.world()) - 1);
    return ExpectEqual("the sum", Decode(got, DType::kFloat32), std::vector<float>(kHidden, all));
  }

 private:
  RankHarness& rank_;
  std::vector<std::string> phases_;
  std::unique_ptr<CollectiveSet> set_;
};

RANKS_TEST(WarmupConformance, ASetIsBuiltInPhasesThenSealed, {1, 2, 4}) {
  const ParallelConfig config =
      rank.world() == 4 ? ParallelConfig{.tp = 2, .cp = 2} : ParallelConfig{.cp = rank.world()};
  EpochOfRank epoch(rank, config, Epoch(1), rank.context().rendezvous);
  MUSTER_RETURN_IF_ERROR(epoch.Warmup());
  MUSTER_RETURN_IF_ERROR(ExpectTrue(
      epoch.phases() ==
          "warmup/probe warmup/vote warmup/allocate warmup/exchange warmup/open warmup/barrier "
          "warmup/self-test warmup/acknowledge",
      epoch.phases()));
  MUSTER_RETURN_IF_ERROR(epoch.Step());
  return ExpectStatus(epoch.Warmup(), absl::StatusCode::kFailedPrecondition, "sealed");
}

// The order in which they go is another on every second rank.
RANKS_TEST(WarmupConformance, TwoEpochsLiveInTheSameRanksAndGoInAnyOrder, {2, 4}) {
  const int world = rank.world();
  for (uint64_t round = 0; round < 2; ++round) {
    const Epoch first_epoch(10 + 2 * round), second_epoch(11 + 2 * round);
    const auto first_meeting = rank.context().make_rendezvous(first_epoch);
    const auto second_meeting = rank.context().make_rendezvous(second_epoch);
    auto first = std::make_unique<EpochOfRank>(rank, ParallelConfig{.cp = world}, first_epoch,
                                               *first_meeting);
    auto second = std::make_unique<EpochOfRank>(rank, ParallelConfig{.tp = world}, second_epoch,
                                                *second_meeting);
    MUSTER_RETURN_IF_ERROR(first->Warmup());
    MUSTER_RETURN_IF_ERROR(first->Step());
    MUSTER_RETURN_IF_ERROR(second->Warmup());
    for (int step = 0; step < 3; ++step) {
      MUSTER_RETURN_IF_ERROR(second->Step());
      MUSTER_RETURN_IF_ERROR(first->Step());
    }
    const auto survivor = round == 0 ? std::move(second) : std::move(first);
    first.reset();
    second.reset();
    for (int step = 0; step < 3; ++step) MUSTER_RETURN_IF_ERROR(survivor->Step());
  }
  return absl::OkStatus();
}

RANKS_TEST(WarmupConformance, ARankWithoutMemoryFailsAllWithItsNumbersAndNothingIsKept, {2, 3}) {
  const int poor = rank.world() - 1;
  const uint64_t limit = rank.rank() == poor ? uint64_t{8} << 10 : 0;
  MUSTER_RETURN_IF_ERROR(rank.UseBackend({.memory_limit = limit}));
  EpochOfRank epoch(rank, {.cp = rank.world()}, Epoch(1), rank.context().rendezvous);
  const absl::Status status = epoch.Warmup();
  MUSTER_RETURN_IF_ERROR(ExpectStatus(status, absl::StatusCode::kResourceExhausted,
                                      absl::StrCat("rank ", poor, " wanted")));
  MUSTER_RETURN_IF_ERROR(
      ExpectStatus(status, absl::StatusCode::kResourceExhausted, "8.0 KiB free"));
  return ExpectTrue(rank.ledger().total() == 0 && DetailOf(status).phase == "warmup/vote",
                    status.ToString());
}

// In every meeting of the warm-up, one rank fails in its turn: it does not come, and says so.
RANKS_TEST(WarmupConformance, ARankThatFailsInAnyPhaseFailsAllAtOnceAndNothingIsKept, {3}) {
  uint64_t number = 20;
  for (const char* phase : {"warmup/vote", "warmup/exchange", "warmup/barrier", "warmup/self-test",
                            "warmup/acknowledge"}) {
    const auto meeting = rank.context().make_rendezvous(Epoch(++number));
    FaultyRendezvous faulty(*meeting, {.fault = FaultyRendezvous::Fault::kFails,
                                       .key = phase,
                                       .status = absl::InternalError("a cosmic ray")});
    const bool fails = rank.rank() == 1;
    Rendezvous& rendezvous = fails ? static_cast<Rendezvous&>(faulty) : *meeting;
    EpochOfRank epoch(rank, {.cp = 3}, Epoch(number), rendezvous);
    const absl::Status status = epoch.Warmup();
    // As the worker does with every failed warm-up.
    if (fails) meeting->Fail(rank.WorldGroup(Epoch(number)), status);
    MUSTER_RETURN_IF_ERROR(ExpectStatus(
        status, fails ? absl::StatusCode::kInternal : absl::StatusCode::kAborted, "a cosmic ray"));
    MUSTER_RETURN_IF_ERROR(ExpectTrue(!epoch.set().sealed() && rank.ledger().total() == 0,
                                      absl::StrCat("all freed: ", phase)));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace muster::testing
