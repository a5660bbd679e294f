// What every Communicator keeps to.
#include <algorithm>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "tests/conformance/rank_harness.h"

namespace muster::testing {
namespace {

class CommunicatorConformance : public RanksConformance {};
INSTANTIATE_CONFORMANCE(CommunicatorConformance);

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
// From none to several slabs of 16 KiB.
constexpr size_t kCounts[] = {0, 1, 7, 1000, 9001};
constexpr uint64_t kOneShot = ~uint64_t{0}, kTwoShot = 0;

std::vector<float> PartOf(int rank, size_t count, DType dtype) {
  return RandomNumbers(absl::StrCat("part of rank ", rank), count, dtype);
}

// fp32 accumulation in rank order, one rounding.
std::vector<float> SumInRankOrder(const std::vector<int>& ranks, size_t count, DType dtype) {
  std::vector<float> sum = PartOf(ranks[0], count, dtype);
  for (size_t r = 1; r < ranks.size(); ++r) {
    const std::vector<float> part = PartOf(ranks[r], count, dtype);
    for (size_t i = 0; i < count; ++i) sum[i] += part[i];
  }
  return Decode(Encode(sum, dtype), dtype);
}

std::vector<int> RanksUpTo(int world) {
  std::vector<int> ranks;
  for (int rank = 0; rank < world; ++rank) ranks.push_back(rank);
  return ranks;
}

absl::Status CheckAllReduce(RankHarness& rank, JoinedGroup& joined, const std::vector<int>& ranks,
                            size_t count, DType dtype) {
  const Bytes part = Encode(PartOf(rank.rank(), count, dtype), dtype);
  const std::vector<float> wanted = SumInRankOrder(ranks, count, dtype);
  MUSTER_ASSIGN_OR_RETURN(Buffer data, rank.Allocate(part.size()));
  for (uint64_t two_shot_bytes : {kOneShot, kTwoShot}) {
    joined.endpoint->SetTwoShotBytes(two_shot_bytes);
    MUSTER_RETURN_IF_ERROR(rank.Upload(part, data));
    MUSTER_RETURN_IF_ERROR(rank.Execute(
        [&] { return joined.communicator->AllReduce(rank.stream(), data.data(), count, dtype); }));
    MUSTER_ASSIGN_OR_RETURN(const Bytes got, rank.Download(data, part.size()));
    MUSTER_RETURN_IF_ERROR(
        ExpectEqual(absl::StrCat("sum of ", count, " ", Name(dtype)), Decode(got, dtype), wanted));
  }
  return absl::OkStatus();
}

RANKS_TEST(CommunicatorConformance, AllReduceSumsInRankOrderInOneShotAndInTwo, kGroupSizes) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  for (DType dtype : kDTypes) {
    for (size_t count : kCounts) {
      MUSTER_RETURN_IF_ERROR(CheckAllReduce(rank, joined, RanksUpTo(rank.world()), count, dtype));
    }
  }
  return absl::OkStatus();
}

RANKS_TEST(CommunicatorConformance, AllGatherBringsEveryRanksBytesInRankOrder, kGroupSizes) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{13}, size_t{4096}, size_t{50001}}) {
    Bytes wanted;
    for (int peer = 0; peer < rank.world(); ++peer) {
      const Bytes theirs = RandomBytes(absl::StrCat(peer), bytes);
      wanted.insert(wanted.end(), theirs.begin(), theirs.end());
    }
    MUSTER_ASSIGN_OR_RETURN(Buffer send,
                            rank.Upload(RandomBytes(absl::StrCat(rank.rank()), bytes)));
    MUSTER_ASSIGN_OR_RETURN(Buffer receive, rank.Allocate(wanted.size()));
    MUSTER_RETURN_IF_ERROR(rank.Execute([&] {
      return joined.communicator->AllGather(rank.stream(), send.data(), receive.data(), bytes);
    }));
    MUSTER_ASSIGN_OR_RETURN(const Bytes got, rank.Download(receive, wanted.size()));
    MUSTER_RETURN_IF_ERROR(ExpectEqual("all-gather", got, wanted));
  }
  return absl::OkStatus();
}

RANKS_TEST(CommunicatorConformance, ReduceScatterLeavesThisRanksPartOfTheSum, kGroupSizes) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  for (DType dtype : kDTypes) {
    for (size_t count : {size_t{0}, size_t{1}, size_t{7}, size_t{1001}}) {
      const size_t all = count * static_cast<size_t>(rank.world());
      MUSTER_ASSIGN_OR_RETURN(Buffer send,
                              rank.Upload(Encode(PartOf(rank.rank(), all, dtype), dtype)));
      MUSTER_ASSIGN_OR_RETURN(Buffer receive, rank.Allocate(count * SizeOf(dtype)));
      MUSTER_RETURN_IF_ERROR(rank.Execute([&] {
        return joined.communicator->ReduceScatter(rank.stream(), send.data(), receive.data(), count,
                                                  dtype);
      }));
      MUSTER_ASSIGN_OR_RETURN(const Bytes got, rank.Download(receive, count * SizeOf(dtype)));
      const std::vector<float> sum = SumInRankOrder(RanksUpTo(rank.world()), all, dtype);
      const auto begin = sum.begin() + static_cast<ptrdiff_t>(count) * rank.rank();
      MUSTER_RETURN_IF_ERROR(ExpectEqual(absl::StrCat("part of ", count, " ", Name(dtype)),
                                         Decode(got, dtype),
                                         {begin, begin + static_cast<ptrdiff_t>(count)}));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBroadcast(RankHarness& rank, JoinedGroup& joined, GroupRank root, size_t bytes) {
  const std::string sent = absl::StrCat(joined.group.DebugString(), " root ", root.value());
  const bool is_root = joined.group.rank() == root;
  MUSTER_ASSIGN_OR_RETURN(
      Buffer data, rank.Upload(is_root ? RandomBytes(sent, bytes) : Bytes(bytes, std::byte{0})));
  MUSTER_RETURN_IF_ERROR(rank.Execute(
      [&] { return joined.communicator->Broadcast(rank.stream(), data.data(), bytes, root); }));
  MUSTER_ASSIGN_OR_RETURN(const Bytes got, rank.Download(data, bytes));
  return ExpectEqual(absl::StrCat("broadcast in ", sent), got, RandomBytes(sent, bytes));
}

RANKS_TEST(CommunicatorConformance, BroadcastBringsTheBytesOfAnyRoot, kGroupSizes) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{4099}, size_t{50001}}) {
    for (int root = 0; root < rank.world(); ++root) {
      MUSTER_RETURN_IF_ERROR(CheckBroadcast(rank, joined, GroupRank(root), bytes));
    }
  }
  const auto beyond = [&] {
    return joined.communicator->Broadcast(rank.stream(), nullptr, 0, GroupRank(rank.world()));
  };
  return ExpectStatus(beyond(), absl::StatusCode::kInvalidArgument,
                      absl::StrCat("root ", rank.world()));
}

RANKS_TEST(CommunicatorConformance, NobodyPassesABarrierBeforeTheLastHasCome, kGroupSizes) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  for (int round = 0; round < 5; ++round) {
    const int64_t came = absl::GetCurrentTimeNanos();
    MUSTER_RETURN_IF_ERROR(
        rank.Execute([&] { return joined.communicator->Barrier(rank.stream()); }));
    const int64_t passed = absl::GetCurrentTimeNanos();
    MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> arrivals,
                            rank.Meet(absl::StrCat("round ", round), absl::StrCat(came)));
    for (const std::string& arrival : arrivals) {
      MUSTER_RETURN_IF_ERROR(ExpectTrue(std::stoll(arrival) <= passed, "all came before"));
    }
  }
  return absl::OkStatus();
}

// tp = 2, cp = 2: CP[0,2] and CP[1,3] have the same size and kind, and the latter lacks rank 0.
RANKS_TEST(CommunicatorConformance, ABroadcastInAGroupWithoutRank0CountsItsRootInTheGroup, {4}) {
  const std::vector<int> members = {rank.rank() % 2, rank.rank() % 2 + 2};
  MUSTER_ASSIGN_OR_RETURN(const Group group, rank.GroupOf(GroupKind::kCp, members));
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.Join(group, 4096));
  for (int root : {0, 1}) {
    MUSTER_RETURN_IF_ERROR(CheckBroadcast(rank, joined, GroupRank(root), 10000));
  }
  return absl::OkStatus();
}

RANKS_TEST(CommunicatorConformance, GroupsOfEqualSizeThatAreAliveTogetherAreNotConfused, {4}) {
  const int self = rank.rank();
  const std::vector<int> tp = {self / 2 * 2, self / 2 * 2 + 1}, cp = {self % 2, self % 2 + 2};
  const std::vector<int> stage = {0, 1, 2, 3};
  std::vector<JoinedGroup> joined;
  for (const auto& [kind, members] :
       {std::pair{GroupKind::kStage, stage}, {GroupKind::kTp, tp}, {GroupKind::kCp, cp}}) {
    MUSTER_ASSIGN_OR_RETURN(const Group group, rank.GroupOf(kind, members));
    MUSTER_ASSIGN_OR_RETURN(JoinedGroup one, rank.Join(group, 4096));
    joined.push_back(std::move(one));
  }
  for (int round = 0; round < 3; ++round) {
    for (size_t count : {size_t{5}, size_t{3000}}) {
      MUSTER_RETURN_IF_ERROR(CheckAllReduce(rank, joined[1], tp, count, DType::kFloat32));
      MUSTER_RETURN_IF_ERROR(CheckAllReduce(rank, joined[2], cp, count, DType::kFloat32));
      MUSTER_RETURN_IF_ERROR(CheckAllReduce(rank, joined[0], stage, count, DType::kFloat32));
    }
  }
  return absl::OkStatus();
}

RANKS_TEST(CommunicatorConformance, TheOrderOfTheRankListIsTheOrderOfTheGroup, {3}) {
  const std::vector<int> order = {2, 0, 1};
  MUSTER_ASSIGN_OR_RETURN(const Group group, rank.GroupOf(GroupKind::kTp, order));
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.Join(group, 4096));
  MUSTER_RETURN_IF_ERROR(CheckAllReduce(rank, joined, order, 1000, DType::kFloat32));
  for (int root : {0, 1, 2}) {
    MUSTER_RETURN_IF_ERROR(CheckBroadcast(rank, joined, GroupRank(root), 100));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace muster::testing
