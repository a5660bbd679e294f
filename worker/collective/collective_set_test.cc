#include "worker/collective/collective_set.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "tests/support/local_rendezvous.h"
#include "tests/support/status_matchers.h"
#include "worker/collective/partial.h"
#include "worker/collective/shm/shm_backend.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster {
namespace {

using testing::LocalRendezvous;
using testing::LocalRendezvousBoard;

constexpr int kHidden = 48;

std::vector<CollectiveUse> Uses() {
  return {CollectiveUse::AllReduceRmsNorm(GroupKind::kStage, kHidden, 8),
          CollectiveUse::CpCombine(/*heads=*/4, /*head_dim=*/8, /*max_tokens=*/8)};
}

// One rank of one epoch.
struct Rank {
  Rank(const ParallelConfig& config, Epoch epoch, int self, LocalRendezvousBoard& board,
       const CpuDeviceOptions& options = {})
      : device(options), backend(device, {}), rendezvous(board, epoch) {
    std::vector<Group> groups;
    for (const GroupSpec& spec : DeriveGroups(config, epoch)) {
      absl::StatusOr<Group> group = Group::Create(spec, GlobalRank(self));
      if (group.ok()) groups.push_back(*std::move(group));
    }
    set = std::make_unique<CollectiveSet>(
        groups, backend, device, rendezvous, ledger,
        CollectiveSet::Options{.on_phase = [this](absl::string_view phase) {
          phases.emplace_back(phase);
          if (at_phase) at_phase(phase);
        }});
  }

  absl::Status Warmup() { return set->Warmup(Uses(), absl::Seconds(20)); }

  // residual_out of every element when each rank contributes `value`.
  absl::StatusOr<float> Sum(float value) {
    std::vector<float> partial(kHidden, value), weight(kHidden, 1.0f);
    std::vector<float> residual(kHidden), norm(kHidden);
    MUSTER_ASSIGN_OR_RETURN(Workspace * workspace, set->workspace(GroupKind::kStage));
    MUSTER_ASSIGN_OR_RETURN(auto reducer, Reducer<GroupKind::kStage>::Create(*workspace));
    MUSTER_ASSIGN_OR_RETURN(auto stream, device.CreateStream());
    MUSTER_RETURN_IF_ERROR(reducer.ReduceAddNorm(
        *stream, Partial<GroupKind::kStage>{partial.data(), 1, kHidden},
        {.weight = weight.data(), .residual_out = residual.data(), .norm_out = norm.data()}));
    return residual[kHidden / 2];
  }

  Ledger ledger;
  CpuDevice device;
  ShmBackend backend;
  LocalRendezvous rendezvous;
  std::vector<std::string> phases;
  std::function<void(absl::string_view)> at_phase;
  std::unique_ptr<CollectiveSet> set;
};

class CollectiveSetTest : public ::testing::Test {
 protected:
  void Make(const ParallelConfig& config, Epoch epoch = Epoch(1)) {
    for (int rank = 0; rank < config.world_size(); ++rank) {
      ranks_.push_back(std::make_unique<Rank>(config, epoch, rank, board_));
    }
  }

  std::vector<absl::Status> Run(const std::function<absl::Status(Rank&, int)>& body) {
    std::vector<absl::Status> statuses(ranks_.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < ranks_.size(); ++i) {
      threads.emplace_back([&, i] { statuses[i] = body(*ranks_[i], static_cast<int>(i)); });
    }
    for (std::thread& thread : threads) thread.join();
    return statuses;
  }
  std::vector<absl::Status> WarmupAll() {
    return Run([](Rank& rank, int) { return rank.Warmup(); });
  }

  LocalRendezvousBoard board_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

TEST_F(CollectiveSetTest, PassesThroughItsPhasesInOrderAndIsSealed) {
  Make({.tp = 2, .cp = 2});
  for (const absl::Status& status : WarmupAll()) ASSERT_OK(status);
  for (const auto& rank : ranks_) {
    EXPECT_EQ(absl::StrJoin(rank->phases, " "),
              "warmup/probe warmup/vote warmup/allocate warmup/exchange warmup/open "
              "warmup/barrier warmup/self-test warmup/acknowledge");
    EXPECT_TRUE(rank->set->sealed());
    EXPECT_STATUS(rank->Warmup(), absl::StatusCode::kFailedPrecondition, "sealed");
    EXPECT_EQ(rank->set->layout_digest(), ranks_[0]->set->layout_digest());
  }
}

TEST_F(CollectiveSetTest, ChargesOneWorkspaceForGroupsOfTheSameRanks) {
  Make({.tp = 1, .cp = 2});
  for (const absl::Status& status : WarmupAll()) ASSERT_OK(status);
  const std::vector<LedgerEntry> entries = ranks_[0]->ledger.Entries();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].tag, "workspace/STAGE+CP");
  EXPECT_EQ(entries[1].tag, "workspace/TP");
}

TEST_F(CollectiveSetTest, GivesEachKindItsOwnGroup) {
  Make({.tp = 2, .cp = 2});
  for (const absl::Status& status : WarmupAll()) ASSERT_OK(status);
  ASSERT_OK_AND_ASSIGN(Workspace * cp, ranks_[3]->set->workspace(GroupKind::kCp));
  EXPECT_EQ(cp->group().DebugString(), "CP[1,3]");
  ASSERT_OK_AND_ASSIGN(Communicator * tp, ranks_[3]->set->communicator(GroupKind::kTp));
  EXPECT_EQ(tp->group().DebugString(), "TP[2,3]");
  EXPECT_STATUS(Reducer<GroupKind::kStage>::Create(*cp), absl::StatusCode::kFailedPrecondition,
                "partial sums over STAGE cannot be reduced over CP[1,3]");
}

TEST_F(CollectiveSetTest, SumsOverTheStage) {
  Make({.tp = 3, .cp = 2});
  for (const absl::Status& status : WarmupAll()) ASSERT_OK(status);
  const auto statuses = Run([](Rank& rank, int self) -> absl::Status {
    MUSTER_ASSIGN_OR_RETURN(const float sum, rank.Sum(static_cast<float>(1 << self)));
    return sum == 63 ? absl::OkStatus() : absl::InternalError(absl::StrCat("sum is ", sum));
  });
  for (const absl::Status& status : statuses) EXPECT_OK(status);
}

TEST_F(CollectiveSetTest, KeepsATallyOfWhatIsEnqueued) {
  Make({.tp = 2});
  for (const absl::Status& status : WarmupAll()) ASSERT_OK(status);
  const CollectiveTally before = ranks_[0]->set->tally();
  for (const absl::Status& status : Run([](Rank&rank, int) { return rank.Sum(1.0f).status(); })) {
    ASSERT_OK(status);
  }
  const CollectiveTally tally = ranks_[0]->set->tally() - before;
  constexpr auto kSum = static_cast<size_t>(CollectiveOp::kAllReduceRmsNorm);
  EXPECT_EQ(tally.operations[kSum], 1u);
  EXPECT_EQ(tally.bytes[kSum], kHidden * sizeof(float));
}

TEST_F(CollectiveSetTest, SaysWhichGroupsFuseAndWhyNot) {
  Make({.tp = 1, .cp = 2});
  for (const absl::Status& status : WarmupAll()) ASSERT_OK(status);
  std::string all;
  for (const FusionReport& group : ranks_[0]->set->fusion()) {
    absl::StrAppend(&all, GroupKindName(group.kind), " ", group.ranks, " ", group.fused, " ",
                    group.why_not, "; ");
  }
  EXPECT_EQ(all, "STAGE 2 1 ; TP 1 0 single_rank; CP 2 1 ; ");
}

TEST_F(CollectiveSetTest, WorksAloneWithoutARendezvous) {
  Make({});
  ASSERT_OK(ranks_[0]->Warmup());
  ASSERT_OK_AND_ASSIGN(const float sum, ranks_[0]->Sum(2.5f));
  EXPECT_EQ(sum, 2.5f);
}

TEST_F(CollectiveSetTest, OffersNothingBeforeWarmup) {
  Make({});
  EXPECT_STATUS(ranks_[0]->set->workspace(GroupKind::kStage), absl::StatusCode::kFailedPrecondition,
                "made in warm-up only");
  EXPECT_STATUS(ranks_[0]->set->communicator(GroupKind::kCp), absl::StatusCode::kFailedPrecondition,
                "made in warm-up only");
}

TEST_F(CollectiveSetTest, TellsAllRanksTheNumbersOfTheOneWithoutMemory) {
  for (int rank = 0; rank < 3; ++rank) {
    const CpuDeviceOptions options{.memory_limit = rank == 1 ? uint64_t{40} << 10 : 0};
    ranks_.push_back(
        std::make_unique<Rank>(ParallelConfig{.cp = 3}, Epoch(1), rank, board_, options));
  }
  for (const absl::Status& status : Run([](Rank&rank, int) {
         return rank.set->Warmup({CollectiveUse::AllReduceRmsNorm(GroupKind::kStage, 4096, 8)},
                                 absl::Seconds(20));
       })) {
    EXPECT_STATUS(status, absl::StatusCode::kResourceExhausted, "warmup/vote: rank 1 wanted");
    EXPECT_STATUS(status, absl::StatusCode::kResourceExhausted, "40.0 KiB free");
    EXPECT_STATUS(status, absl::StatusCode::kResourceExhausted, "ranks 0, 2 succeeded");
    EXPECT_EQ(DetailOf(status).ranks, std::vector<GlobalRank>{GlobalRank(1)});
    EXPECT_EQ(DetailOf(status).phase, "warmup/vote");
  }
  for (const auto& rank : ranks_) EXPECT_EQ(rank->ledger.total(), 0u);
}

class CollectiveSetPhaseTest : public CollectiveSetTest,
                               public ::testing::WithParamInterface<const char*> {};

TEST_P(CollectiveSetPhaseTest, AbortEndsWarmupAndFreesAll) {
  Make({.tp = 2, .cp = 2});
  for (const auto& rank : ranks_) {
    rank->at_phase = [&rank = *rank](absl::string_view phase) {
      if (phase != GetParam()) return;
      rank.set->Abort(absl::CancelledError("the epoch is over"));
      rank.rendezvous.Cancel(absl::CancelledError("the epoch is over"));
    };
  }
  for (const absl::Status& status : WarmupAll()) {
    EXPECT_STATUS(status, absl::StatusCode::kCancelled, "the epoch is over");
  }
  for (const auto& rank : ranks_) {
    EXPECT_FALSE(rank->set->sealed());
    EXPECT_EQ(rank->ledger.total(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Phases, CollectiveSetPhaseTest,
                         ::testing::Values("warmup/probe", "warmup/vote", "warmup/allocate",
                                           "warmup/exchange", "warmup/open", "warmup/barrier",
                                           "warmup/self-test", "warmup/acknowledge"));

TEST_F(CollectiveSetTest, AnAbortOfOneRankInTheSelfTestReachesAll) {
  Make({.tp = 1, .cp = 3});
  ranks_[1]->at_phase = [this](absl::string_view phase) {
    if (phase == "warmup/self-test") ranks_[1]->set->Abort(absl::DataLossError("bad memory"));
  };
  for (const absl::Status& status : WarmupAll()) {
    EXPECT_FALSE(status.ok());
    EXPECT_STATUS(status, status.code(), "bad memory");
  }
}

TEST_F(CollectiveSetTest, KeepsTwoEpochsApartWhicheverGoesFirst) {
  for (const bool first_goes_first : {true, false}) {
    LocalRendezvousBoard board;
    std::vector<std::unique_ptr<Rank>> old_epoch, new_epoch;
    for (int rank = 0; rank < 2; ++rank) {
      old_epoch.push_back(std::make_unique<Rank>(ParallelConfig{.cp = 2}, Epoch(1), rank, board));
      new_epoch.push_back(std::make_unique<Rank>(ParallelConfig{.tp = 2}, Epoch(2), rank, board));
    }
    std::vector<absl::Status> statuses(2);
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&, i] {
        statuses[i] = [&]() -> absl::Status {
          MUSTER_RETURN_IF_ERROR(old_epoch[i]->Warmup());
          MUSTER_RETURN_IF_ERROR(new_epoch[i]->Warmup());
          MUSTER_RETURN_IF_ERROR(old_epoch[i]->Sum(1).status());
          MUSTER_RETURN_IF_ERROR(new_epoch[i]->Sum(1).status());
          Rank& survivor = first_goes_first ? *new_epoch[i] : *old_epoch[i];
          (first_goes_first ? old_epoch : new_epoch)[i].reset();
          for (int step = 0; step < 10; ++step) {
            MUSTER_ASSIGN_OR_RETURN(const float sum, survivor.Sum(1.5f));
            if (sum != 3) return absl::InternalError("wrong sum");
          }
          return absl::OkStatus();
        }();
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& status : statuses) EXPECT_OK(status);
  }
}

}  // namespace
}  // namespace muster
