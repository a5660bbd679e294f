#include "coordinator/rendezvous.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "base/error.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kLate = absl::StatusCode::kDeadlineExceeded;
constexpr auto kStale = absl::StatusCode::kFailedPrecondition;
constexpr absl::Duration kTimeout = absl::Seconds(10);

using Values = std::vector<std::string>;

// Where a call's answer lands.
struct Answer {
  std::optional<absl::StatusOr<Values>> result;
  GatherDone Taker() {
    return [this](const absl::StatusOr<GatheredValues>& values) {
      ASSERT_FALSE(result.has_value()) << "answered twice";
      result.emplace(values.ok() ? absl::StatusOr<Values>(**values) : values.status());
    };
  }
  bool waits() const { return !result.has_value(); }
  absl::Status status() const { return waits() ? absl::UnknownError("waits") : result->status(); }
  Values values() const { return waits() || !result->ok() ? Values() : **result; }
};

Topology MakeTopology(uint64_t epoch, const ParallelConfig& config) {
  Topology topology{.epoch = Epoch(epoch),
                    .term = Term(1),
                    .config = config,
                    .groups = DeriveGroups(config, Epoch(epoch))};
  for (int i = 0; i < config.world_size(); ++i) {
    topology.ranks.push_back({.rank = GlobalRank(i),
                              .worker_id = absl::StrCat("w", i),
                              .incarnation = Incarnation(100 + static_cast<uint64_t>(i))});
  }
  return topology;
}

// Epoch 5 of tp=2 cp=2, so that CP[1,3] is a group without rank 0.
class RendezvousBoardTest : public ::testing::Test {
 protected:
  RendezvousBoardTest() { board_.BeginEpoch(topology_); }

  MeetingPlace Place(GroupKind kind, int first, int member, const std::string& key) const {
    for (const GroupSpec& group : topology_.groups) {
      if (group.kind != kind || group.ranks.front() != GlobalRank(first)) continue;
      const GlobalRank rank = group.ranks.at(static_cast<size_t>(member));
      return {.epoch = topology_.epoch,
              .group = group.id,
              .key = key,
              .incarnation = topology_.ranks[static_cast<size_t>(rank.value())].incarnation};
    }
    ADD_FAILURE() << "no such group";
    return {};
  }
  AllGatherCall Stage(int rank, absl::StatusOr<std::string> value, const std::string& key = "k") {
    return {.place = Place(GroupKind::kStage, 0, rank, key),
            .rank = GroupRank(rank),
            .contribution = std::move(value),
            .timeout = kTimeout};
  }
  absl::Status Fails(const AllGatherCall& call) {
    Answer answer;
    board_.AllGather(call, answer.Taker());
    return answer.status();
  }

  FakeClock clock_;
  std::map<std::string, WorkerNote> notes_;
  RendezvousBoard board_{clock_, [this](const std::string& id) { return notes_[id]; }};
  const Topology topology_ = MakeTopology(5, {.tp = 2, .cp = 2});
  Answer a_[4];
};

TEST_F(RendezvousBoardTest, EveryRankGetsAllValuesInGroupRankOrderWhenTheLastArrives) {
  for (int rank : {2, 0, 3}) board_.AllGather(Stage(rank, absl::StrCat(rank)), a_[rank].Taker());
  EXPECT_TRUE(a_[0].waits());
  EXPECT_EQ(board_.waiting(), 3u);
  board_.AllGather(Stage(1, "1"), a_[1].Taker());
  EXPECT_EQ(board_.waiting(), 0u);
  for (const Answer& answer : a_) EXPECT_EQ(answer.values(), (Values{"0", "1", "2", "3"}));
}

TEST_F(RendezvousBoardTest, AGroupWithoutRankZeroMeetsByItsGroupRanks) {
  for (int member : {1, 0}) {
    board_.AllGather({.place = Place(GroupKind::kCp, 1, member, "k"),
                      .rank = GroupRank(member),
                      .contribution = absl::StrCat("member ", member),
                      .timeout = kTimeout},
                     a_[member].Taker());
  }
  EXPECT_EQ(a_[0].values(), (Values{"member 0", "member 1"}));
}

TEST_F(RendezvousBoardTest, GroupsOfEqualSizeAndKeysOfOneGroupAreApart) {
  board_.AllGather({.place = Place(GroupKind::kCp, 0, 0, "k"),
                    .rank = GroupRank(0),
                    .contribution = std::string("x"),
                    .timeout = kTimeout},
                   a_[0].Taker());
  board_.AllGather({.place = Place(GroupKind::kTp, 0, 1, "k"),
                    .rank = GroupRank(1),
                    .contribution = std::string("y"),
                    .timeout = kTimeout},
                   a_[1].Taker());
  EXPECT_TRUE(a_[0].waits());
  EXPECT_TRUE(a_[1].waits());
}

TEST_F(RendezvousBoardTest, ARepeatedCallJoinsAndLaterRepeatsTheResult) {
  board_.AllGather(Stage(0, "0"), a_[0].Taker());
  Answer again;
  board_.AllGather(Stage(0, "0"), again.Taker());
  for (int rank : {1, 2, 3}) board_.AllGather(Stage(rank, absl::StrCat(rank)), a_[rank].Taker());
  EXPECT_EQ(again.values(), a_[0].values());
  Answer late;
  board_.AllGather(Stage(2, "2"), late.Taker());
  EXPECT_EQ(late.values(), a_[0].values());
  EXPECT_STATUS(Fails(Stage(2, "other")), kInvalid, "group rank 2 has contributed another value");
}

TEST_F(RendezvousBoardTest, AnotherValueIsRefusedAndTheFirstStays) {
  board_.AllGather(Stage(0, "0"), a_[0].Taker());
  EXPECT_STATUS(Fails(Stage(0, "x")), kInvalid, "another value");
  for (int rank : {1, 2, 3}) board_.AllGather(Stage(rank, absl::StrCat(rank)), a_[rank].Taker());
  EXPECT_EQ(a_[0].values().at(0), "0");
}

TEST_F(RendezvousBoardTest, TheFirstDeadlineFailsTheMeetingAndNamesTheMissing) {
  notes_["w1"] = {"warmup/open", "in warmup/open, 3 of 7 handles; heartbeat 1.2s ago"};
  notes_["w3"] = {"load", "in load; heartbeat 100ms ago"};
  AllGatherCall hasty = Stage(0, "0", "ipc-handles");
  hasty.timeout = absl::Seconds(2);
  board_.AllGather(hasty, a_[0].Taker());
  board_.AllGather(Stage(2, "2", "ipc-handles"), a_[2].Taker());
  clock_.Advance(absl::Milliseconds(1999));
  board_.Tick();
  EXPECT_TRUE(a_[0].waits());
  clock_.Advance(absl::Milliseconds(1));
  board_.Tick();
  for (int rank : {0, 2}) {
    EXPECT_STATUS(a_[rank].status(), kLate,
                  "all-gather 'ipc-handles' of STAGE[0,1,2,3] in epoch 5 of replica 0 waited 2s "
                  "for rank 1 (worker w1, in warmup/open, 3 of 7 handles; heartbeat 1.2s ago), "
                  "rank 3 (worker w3, in load; heartbeat 100ms ago)");
  }
  const ErrorDetail detail = DetailOf(a_[2].status());
  EXPECT_EQ(detail.reason, ErrorReason::kRankMissing);
  EXPECT_EQ(detail.ranks, (std::vector<GlobalRank>{GlobalRank(1), GlobalRank(3)}));
  EXPECT_EQ(detail.workers, (std::vector<std::string>{"w1", "w3"}));
  EXPECT_EQ(detail.phase, "warmup/open");
  EXPECT_STATUS(Fails(Stage(1, "1", "ipc-handles")), kLate, "rank 1");
  Answer other;
  board_.AllGather(Stage(1, "1", "next"), other.Taker());
  EXPECT_TRUE(other.waits());
}

TEST_F(RendezvousBoardTest, OneRanksFailureFailsTheWholeEpochAtOnce) {
  board_.AllGather(Stage(0, "0"), a_[0].Taker());
  board_.AllGather({.place = Place(GroupKind::kCp, 1, 1, "elsewhere"),
                    .rank = GroupRank(1),
                    .contribution = std::string("3"),
                    .timeout = kTimeout},
                   a_[3].Taker());
  board_.AllGather(Stage(1, absl::ResourceExhaustedError("0.7 GiB free")), a_[1].Taker());
  for (int rank : {0, 1, 3}) {
    EXPECT_STATUS(a_[rank].status(), absl::StatusCode::kAborted,
                  "rank 1 (worker w1) failed: 0.7 GiB free");
    EXPECT_EQ(DetailOf(a_[rank].status()).reason, ErrorReason::kRankFailed);
    EXPECT_EQ(DetailOf(a_[rank].status()).ranks, std::vector<GlobalRank>{GlobalRank(1)});
  }
  EXPECT_STATUS(Fails(Stage(2, "2", "later")), absl::StatusCode::kAborted, "0.7 GiB free");
}

TEST_F(RendezvousBoardTest, AFailureThatNamesItsCulpritsKeepsThem) {
  const absl::Status reported =
      MakeError(absl::StatusCode::kDeadlineExceeded, "peer is silent",
                {.reason = ErrorReason::kRankMissing, .ranks = {GlobalRank(2)}, .workers = {"w2"}});
  board_.AllGather(Stage(1, reported), a_[1].Taker());
  EXPECT_EQ(DetailOf(a_[1].status()).ranks, std::vector<GlobalRank>{GlobalRank(2)});
  EXPECT_EQ(DetailOf(a_[1].status()).reason, ErrorReason::kRankMissing);
}

TEST_F(RendezvousBoardTest, TheFirstFailureOfAnEpochStays) {
  board_.AllGather(Stage(0, "0"), a_[0].Taker());
  board_.FailEpoch(ReplicaIndex(0), Epoch(5), absl::UnavailableError("rank 3 was lost"));
  board_.FailEpoch(ReplicaIndex(0), Epoch(5), absl::UnavailableError("rank 2 was lost"));
  EXPECT_STATUS(a_[0].status(), absl::StatusCode::kUnavailable, "rank 3 was lost");
  EXPECT_STATUS(Fails(Stage(1, "1")), absl::StatusCode::kUnavailable, "rank 3 was lost");
}

TEST_F(RendezvousBoardTest, AStaleCallerIsRefused) {
  AllGatherCall call = Stage(0, "0");
  call.place.epoch = Epoch(4);
  EXPECT_STATUS(Fails(call), kStale, "epoch 4 of replica 0 is not held here");
  call = Stage(0, "0");
  call.place.incarnation = Incarnation(1);
  EXPECT_STATUS(Fails(call), kStale, "has no rank on the calling process");
  call.place.incarnation = Incarnation(101);
  EXPECT_STATUS(Fails(call), kStale, "has rank 0 on another process of worker w0");
  EXPECT_EQ(DetailOf(Fails(call)).reason, ErrorReason::kStaleEpoch);
}

TEST_F(RendezvousBoardTest, ACertificateSpeaksForNoOtherWorkersRank) {
  constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
  AllGatherCall call = Stage(1, "handles");
  call.place.worker_id = "w0";
  EXPECT_STATUS(Fails(call), kDenied,
                "the certificate is that of worker/w0; rank 1 of epoch 5 is held by worker w1");
  EXPECT_STATUS(board_.Publish(call.place, "handles"), kDenied, "held by worker w1");
  Answer awaited;
  board_.Await(call.place, kTimeout, awaited.Taker());
  EXPECT_STATUS(awaited.status(), kDenied, "held by worker w1");
  // Another's failure would end the epoch for all.
  call.contribution = absl::InternalError("no");
  EXPECT_STATUS(Fails(call), kDenied, "held by worker w1");
  call = Stage(1, "handles");
  call.place.worker_id = "w1";
  Answer answer;
  board_.AllGather(call, answer.Taker());
  EXPECT_TRUE(answer.waits());
}

TEST_F(RendezvousBoardTest, ARetiredEpochEndsItsWaitsAndIsStale) {
  board_.AllGather(Stage(0, "0"), a_[0].Taker());
  board_.RetireEpoch(ReplicaIndex(0), Epoch(5));
  EXPECT_STATUS(a_[0].status(), kStale, "epoch 5 of replica 0 is over");
  EXPECT_STATUS(Fails(Stage(1, "1")), kStale, "is not held here");
}

TEST_F(RendezvousBoardTest, EveryArgumentHasItsLimit) {
  AllGatherCall call = Stage(0, "0");
  call.place.key = "";
  EXPECT_STATUS(Fails(call), kInvalid, "key has 0 bytes; it can have 1 to 128");
  call.place.key = std::string(129, 'k');
  EXPECT_STATUS(Fails(call), kInvalid, "key has 129 bytes");
  call = Stage(0, "0");
  call.place.group = GroupId(1);
  EXPECT_STATUS(Fails(call), kInvalid, "has no group with id 0000000000000001");
  call = Stage(0, "0");
  call.rank = GroupRank(4);
  EXPECT_STATUS(Fails(call), kInvalid, "group rank is 4; STAGE[0,1,2,3] has 4 ranks");
  call.rank = GroupRank(-1);
  EXPECT_STATUS(Fails(call), kInvalid, "group rank is -1");
  call = Stage(0, "0");
  call.timeout = absl::ZeroDuration();
  EXPECT_STATUS(Fails(call), kInvalid, "timeout is 0");
  call.timeout = absl::Minutes(10) + absl::Nanoseconds(1);
  EXPECT_STATUS(Fails(call), kInvalid, "at most 10m");
  EXPECT_STATUS(Fails(Stage(0, std::string((1 << 20) + 1, 'v'))), kInvalid,
                "value has 1048577 bytes; it can have 1048576");
}

TEST_F(RendezvousBoardTest, AnEpochHasLimitsOfKeysAndBytes) {
  const std::string megabyte(1 << 20, 'v');
  for (int i = 0; i < 256; ++i) {
    board_.AllGather(Stage(0, megabyte, absl::StrCat("k", i)), [](const auto&) {});
  }
  EXPECT_STATUS(Fails(Stage(0, "v", "one more")), absl::StatusCode::kResourceExhausted,
                "epoch 5 has gathered 268435456 bytes, the most it can");
  for (int i = 256; i < 4096; ++i) {
    board_.AllGather(Stage(0, "", absl::StrCat("k", i)), [](const auto&) {});
  }
  EXPECT_STATUS(Fails(Stage(0, "", "yet another")), absl::StatusCode::kResourceExhausted,
                "epoch 5 has used 4096 rendezvous keys, the most it can");
}

TEST_F(RendezvousBoardTest, APublishedValueReachesThoseWhoWaitAndThoseWhoComeLater) {
  const MeetingPlace from = Place(GroupKind::kStage, 0, 0, "id");
  const MeetingPlace to = Place(GroupKind::kStage, 0, 3, "id");
  board_.Await(to, kTimeout, a_[3].Taker());
  EXPECT_TRUE(a_[3].waits());
  EXPECT_OK(board_.Publish(from, "nccl"));
  EXPECT_EQ(a_[3].values(), Values{"nccl"});
  board_.Await(to, kTimeout, a_[2].Taker());
  EXPECT_EQ(a_[2].values(), Values{"nccl"});
  EXPECT_OK(board_.Publish(from, "nccl"));
  EXPECT_STATUS(board_.Publish(from, "other"), absl::StatusCode::kAlreadyExists,
                "'id' has been published with another value");
}

TEST_F(RendezvousBoardTest, OnlyTheWaitsWhoseDeadlineHasPassedGiveUpOnAPublication) {
  const MeetingPlace place = Place(GroupKind::kStage, 0, 0, "id");
  board_.Await(place, absl::Seconds(1), a_[0].Taker());
  board_.Await(place, absl::Seconds(3), a_[1].Taker());
  clock_.Advance(absl::Seconds(2));
  board_.Tick();
  EXPECT_STATUS(a_[0].status(), kLate, "nobody published 'id' in epoch 5 of replica 0 within 1s");
  EXPECT_TRUE(a_[1].waits());
  EXPECT_OK(board_.Publish(place, "late"));
  EXPECT_EQ(a_[1].values(), Values{"late"});
}

TEST_F(RendezvousBoardTest, CloseEndsAllWaitsNowAndLater) {
  board_.AllGather(Stage(0, "0"), a_[0].Taker());
  board_.Close(absl::UnavailableError("the coordinator is stopping"));
  EXPECT_STATUS(a_[0].status(), absl::StatusCode::kUnavailable, "is stopping");
  EXPECT_STATUS(Fails(Stage(1, "1")), absl::StatusCode::kUnavailable, "is stopping");
  EXPECT_STATUS(board_.Publish(Place(GroupKind::kStage, 0, 0, "id"), "v"),
                absl::StatusCode::kUnavailable, "is stopping");
}

// A rank as a thread: its calls wait for their answers.
absl::StatusOr<Values> AllGatherAndWait(RendezvousBoard& board, const AllGatherCall& call) {
  absl::Notification answered;
  absl::StatusOr<Values> result;
  board.AllGather(call, [&](const absl::StatusOr<GatheredValues>& values) {
    result = values.ok() ? absl::StatusOr<Values>(**values) : values.status();
    answered.Notify();
  });
  answered.WaitForNotification();
  return result;
}

TEST_F(RendezvousBoardTest, ThreadsMeetRoundAfterRoundWhileOtherEpochsComeAndGo) {
  constexpr int kRounds = 300;
  std::atomic<bool> done = false;
  std::thread others([&] {
    for (uint64_t epoch = 100; !done; ++epoch) {
      board_.BeginEpoch(MakeTopology(epoch, {.cp = 2}));
      board_.Tick();
      board_.FailEpoch(ReplicaIndex(0), Epoch(epoch), absl::AbortedError("rank 0 failed"));
      board_.RetireEpoch(ReplicaIndex(0), Epoch(epoch));
    }
  });
  std::vector<std::thread> ranks;
  ranks.reserve(4);
  for (int rank = 0; rank < 4; ++rank) {
    ranks.emplace_back([&, rank] {
      for (int round = 0; round < kRounds; ++round) {
        const std::string key = absl::StrCat("round ", round);
        const auto values =
            AllGatherAndWait(board_, Stage(rank, absl::StrCat(rank, " ", round), key));
        ASSERT_OK(values);
        ASSERT_EQ(values->size(), 4u);
        for (int peer = 0; peer < 4; ++peer) {
          ASSERT_EQ(values->at(static_cast<size_t>(peer)), absl::StrCat(peer, " ", round));
        }
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  done = true;
  others.join();
}

TEST_F(RendezvousBoardTest, AFailureReleasesEveryThreadWhereverItWaits) {
  for (uint64_t epoch = 10; epoch < 60; ++epoch) {
    const Topology topology = MakeTopology(epoch, {.cp = 4});
    board_.BeginEpoch(topology);
    absl::BlockingCounter released(3);
    std::vector<std::thread> ranks;
    for (size_t rank = 0; rank < 3; ++rank) {  // the fourth never comes
      ranks.emplace_back([&, rank] {
        const auto values =
            AllGatherAndWait(board_, {.place = {.epoch = topology.epoch,
                                                .group = topology.groups[0].id,
                                                .key = "k",
                                                .incarnation = topology.ranks[rank].incarnation},
                                      .rank = GroupRank(static_cast<int>(rank)),
                                      .contribution = std::string("v"),
                                      .timeout = kTimeout});
        EXPECT_STATUS(values, absl::StatusCode::kUnavailable, "rank 3 was lost");
        released.DecrementCount();
      });
    }
    board_.FailEpoch(ReplicaIndex(0), topology.epoch, absl::UnavailableError("rank 3 was lost"));
    released.Wait();
    for (std::thread& rank : ranks) rank.join();
  }
}

}  // namespace
}  // namespace muster
