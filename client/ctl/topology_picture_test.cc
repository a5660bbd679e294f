#include "client/ctl/topology_picture.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace muster::ctl {
namespace {

v1::Topology MakeTopology(uint32_t tp, uint32_t cp) {
  v1::Topology topology;
  topology.mutable_config()->set_tp(tp);
  topology.mutable_config()->set_cp(cp);
  for (uint32_t rank = 0; rank < tp * cp; ++rank) {
    auto* placement = topology.add_ranks();
    placement->set_rank(rank);
    placement->set_tp_rank(rank % tp);
    placement->set_cp_rank(rank / tp);
    placement->set_worker_id(absl::StrCat("w", rank));
  }
  for (uint32_t tp_rank = 0; tp_rank < tp; ++tp_rank) {
    auto* group = topology.add_groups();
    group->set_kind(v1::GROUP_KIND_CP);
    for (uint32_t cp_rank = 0; cp_rank < cp; ++cp_rank) group->add_ranks(cp_rank * tp + tp_rank);
  }
  return topology;
}

v1::ListWorkersResponse MakeWorkers(int count) {
  v1::ListWorkersResponse workers;
  for (int i = 0; i < count; ++i) {
    auto* worker = workers.add_workers();
    worker->set_worker_id(absl::StrCat("w", i));
    worker->mutable_device()->set_kind("cpu");
    worker->mutable_device()->set_ordinal(i);
    worker->mutable_model()->set_heads(9);
  }
  return workers;
}

TEST(TopologyPictureTest, ContextParallelRanksShareTheBlocksInTurn) {
  EXPECT_EQ(TopologyPicture(MakeTopology(1, 2), MakeWorkers(2), 2),
            "  rank 0  w0  cpu:0 ─┐ CP   KV blocks 0 2 4 ..\n"
            "  rank 1  w1  cpu:1 ─┘      KV blocks 1 3 5 ..\n");
}

TEST(TopologyPictureTest, OneRankHoldsEverything) {
  EXPECT_EQ(TopologyPicture(MakeTopology(1, 1), MakeWorkers(1), 0),
            "rank 0  w0  cpu:0   all KV blocks\n");
}

TEST(TopologyPictureTest, TensorParallelRanksAreBracketedAndCpGroupsListed) {
  EXPECT_EQ(TopologyPicture(MakeTopology(3, 2), MakeWorkers(6), 0),
            "rank 0  w0  cpu:0 ─┐      heads 0-2  KV blocks 0 2 4 ..\n"
            "rank 1  w1  cpu:1  │ TP   heads 3-5  KV blocks 0 2 4 ..\n"
            "rank 2  w2  cpu:2 ─┘      heads 6-8  KV blocks 0 2 4 ..\n"
            "rank 3  w3  cpu:3 ─┐      heads 0-2  KV blocks 1 3 5 ..\n"
            "rank 4  w4  cpu:4  │ TP   heads 3-5  KV blocks 1 3 5 ..\n"
            "rank 5  w5  cpu:5 ─┘      heads 6-8  KV blocks 1 3 5 ..\n"
            "CP [0,3] [1,4] [2,5]\n");
}

TEST(TopologyPictureTest, WorkersThatAreGoneKeepTheirLine) {
  EXPECT_EQ(TopologyPicture(MakeTopology(1, 2), MakeWorkers(1), 0),
            "rank 0  w0  cpu:0 ─┐ CP   KV blocks 0 2 4 ..\n"
            "rank 1  w1        ─┘      KV blocks 1 3 5 ..\n");
}

}  // namespace
}  // namespace muster::ctl
