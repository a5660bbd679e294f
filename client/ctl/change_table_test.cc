#include "client/ctl/change_table.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

void AddRank(v1::ReplicaChange& change, const std::string& worker, v1::RankChange::Role role,
             uint32_t rank, uint64_t shared_mib) {
  auto* entry = change.add_ranks();
  entry->set_worker_id(worker);
  entry->set_role(role);
  entry->set_rank(rank);
  entry->set_weight_bytes_loaded(shared_mib > 0 ? 90 << 20 : 135 << 20);
  entry->set_weight_bytes_shared(shared_mib << 20);
  entry->set_peak_bytes(shared_mib > 0 ? 1228ull << 20 : 700ull << 20);
  entry->set_total_bytes(23ull << 30);
  entry->set_kv_blocks_peak(shared_mib > 0 ? 21 : 10);
  entry->set_kv_blocks_total(1456);
}

// tp=1, cp 2 to 4, as a coordinator would say it.
v1::ReplicaChange Growth() {
  v1::ReplicaChange change;
  change.set_from_epoch(7);
  change.set_to_epoch(8);
  for (auto* config : {change.mutable_from(), change.mutable_to()}) config->set_tp(1);
  change.mutable_from()->set_cp(2);
  change.mutable_to()->set_cp(4);
  for (uint32_t rank : {0, 1}) {
    AddRank(change, absl::StrCat("w", rank), v1::RankChange::ROLE_SURVIVOR, rank, 45);
  }
  for (uint32_t rank : {2, 3}) {
    AddRank(change, absl::StrCat("w", rank), v1::RankChange::ROLE_RECRUIT, rank, 0);
  }
  for (uint32_t rank : {0, 1}) {
    auto* flow = change.add_flows();
    flow->set_from_rank(rank);
    flow->set_to_rank(rank + 2);
    flow->set_blocks(10);
    flow->set_bytes(3880000);
  }
  change.set_kv_blocks_moved(21);
  change.set_kv_blocks_kept(20);
  change.set_kv_bytes_moved(7760000);
  change.set_capacity_tokens_before(46592);
  change.set_capacity_tokens_after(93184);
  change.mutable_predicted_prepare()->set_seconds(1);
  change.mutable_predicted_pause()->set_nanos(4000000);
  return change;
}

int WidestLine(const std::string& text) {
  int widest = 0;
  for (const auto& line : absl::StrSplit(text, '\n')) {
    widest = std::max(widest, DisplayWidth(line));
  }
  return widest;
}

TEST(ChangeTable, OneChangeIsAPage) {
  v1::PlanTopologyResponse plan;
  *plan.add_changes() = Growth();
  EXPECT_EQ(ChangeTable(plan),
            "PLAN  epoch 7 → 8   cp 2 → 4   tp=1   world 2 → 4       nothing has been changed\n"
            "\n"
            "  recruits    w2 w3\n"
            "  survivors   w0 w1\n"
            "              they keep their places; the leader stays w0\n"
            "  weights     135 MiB to load per recruit\n"
            "              90 MiB to load per survivor, 45 MiB shared with epoch 7\n"
            "  KV          21 blocks, 7.4 MiB to move; 20 blocks stay\n"
            "              0→2 3.7 MiB   1→3 3.7 MiB\n"
            "  peak        1.2 GiB of 23 GiB on ranks 0 1 while both epochs are held\n"
            "  KV peak     21 of 1,456 blocks on ranks 0 1\n"
            "  capacity    46,592 → 93,184 tokens\n"
            "  predicted   prepare 1.0 s (serving goes on), pause 4 ms\n");
}

TEST(ChangeTable, ALeaverIsNamedAndSoIsWhatIsLost) {
  v1::ReplicaChange change = Growth();
  change.mutable_ranks(3)->set_role(v1::RankChange::ROLE_LEAVER);
  change.mutable_ranks(3)->set_peak_bytes(22ull << 30);
  change.set_tokens_to_rebuild(4100);
  change.set_lost_count(2);
  change.add_lost_sequences("chat-1/a");
  change.add_lost_sequences("chat-2/b");
  v1::PlanTopologyResponse plan;
  *plan.add_changes() = change;
  const std::string table = ChangeTable(plan);
  for (const char* part :
       {"  leavers     w3\n", "22 GiB of 23 GiB on w3", "4,100 tokens to compute again",
        "2 sequences can be neither", "              chat-1/a   chat-2/b\n"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
  }
  EXPECT_LE(WidestLine(table), 80) << table;
}

TEST(ChangeTable, ManyWorkersAndFlowsFit80Columns) {
  v1::ReplicaChange change = Growth();
  for (uint32_t rank = 4; rank < 64; ++rank) {
    AddRank(change, absl::StrCat("worker-", rank), v1::RankChange::ROLE_RECRUIT, rank, 0);
    auto* flow = change.add_flows();
    flow->set_from_rank(rank % 4);
    flow->set_to_rank(rank);
    flow->set_bytes(uint64_t{700} << 30);
  }
  v1::PlanTopologyResponse plan;
  *plan.add_changes() = change;
  EXPECT_LE(WidestLine(ChangeTable(plan)), 80) << ChangeTable(plan);
  EXPECT_NE(ChangeTable(plan).find("and 38 more"), std::string::npos) << ChangeTable(plan);
}

TEST(ChangeTable, SeveralReplicasAreALineEach) {
  v1::PlanTopologyResponse plan;
  for (uint32_t replica : {0, 1, 2}) {
    *plan.add_changes() = Growth();
    plan.mutable_changes(static_cast<int>(replica))->set_replica(replica);
  }
  const std::string table = ChangeTable(plan);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 6) << table;
  EXPECT_NE(table.find("3 replicas, one after the other   nothing has been changed"),
            std::string::npos);
  EXPECT_LE(WidestLine(table), 80) << table;
}

TEST(ChangeTable, WithoutChangesThereIsNone) { EXPECT_EQ(ChangeTable({}), ""); }

}  // namespace
}  // namespace muster::ctl
