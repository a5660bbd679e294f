#include "client/ctl/top_view.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

void AddWorker(int rank, const std::string& id, v1::ListWorkersResponse& workers) {
  auto& worker = *workers.add_workers();
  worker.set_worker_id(id);
  worker.mutable_device()->set_kind("cpu");
  worker.mutable_device()->set_ordinal(static_cast<uint32_t>(rank));
  worker.set_state(v1::WORKER_STATE_SERVING);
  worker.set_replica(0);
  worker.set_rank(static_cast<uint32_t>(rank));
  worker.set_epoch(7);
  worker.set_step(918204);
  worker.set_kv_blocks_used(52);
  worker.set_kv_blocks_total(100);
  worker.set_queued_requests(rank == 0 ? 3 : 0);
}

TopFrame Frame(int ranks, const std::string& prefix = "w") {
  TopFrame frame;
  frame.coordinator = "127.0.0.1:7600";
  frame.time = absl::FromUnixSeconds(1000);
  auto& replica = *frame.topology.add_replicas();
  replica.set_state(v1::REPLICA_STATE_SERVING);
  replica.mutable_topology()->set_epoch(7);
  replica.mutable_topology()->mutable_config()->set_tp(1);
  replica.mutable_topology()->mutable_config()->set_cp(static_cast<uint32_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    AddWorker(rank, absl::StrCat(prefix, rank), frame.workers);
  }
  for (int i = 0; i < 9; ++i) {
    auto& event = frame.events.emplace_back();
    event.set_kind(v1::EVENT_KIND_PHASE_DONE);
    event.set_message(absl::StrCat("event ", i, std::string(300, '.')));
  }
  auto before = frame.workers;
  for (auto& worker : *before.mutable_workers()) worker.set_step(worker.step() - 80);
  frame.rates.Add(frame.time - absl::Seconds(2), before);
  frame.rates.Add(frame.time, frame.workers);
  return frame;
}

std::string TextOf(const std::vector<ScreenLine>& lines) {
  std::string text;
  for (const ScreenLine& line : lines) absl::StrAppend(&text, line.text, "\n");
  return text;
}

bool Has(const std::vector<ScreenLine>& lines, const std::string& part) {
  return TextOf(lines).find(part) != std::string::npos;
}

TEST(TopLines, FitEveryScreen) {
  for (const int ranks : {0, 1, 4, 60}) {
    for (const int columns : {1, 10, 40, 80, 110, 200}) {
      for (const int rows : {1, 2, 5, 10, 24, 50}) {
        TopFrame frame = Frame(ranks, "muster-worker-of-a-long-name-");
        frame.trouble = std::string(150, 'x');
        const auto lines = TopLines(frame, {.columns = columns, .rows = rows});
        EXPECT_LE(static_cast<int>(lines.size()), rows) << columns << "x" << rows;
        for (const ScreenLine& line : lines) {
          EXPECT_LE(DisplayWidth(line.text), columns) << columns << "x" << rows << line.text;
        }
      }
    }
  }
}

TEST(TopLines, ShowRanksRatesKvAndQueue) {
  const auto lines = TopLines(Frame(2), {.columns = 80, .rows = 24});
  EXPECT_TRUE(Has(lines, "coordinator 127.0.0.1:7600"));
  EXPECT_TRUE(Has(lines, "epoch 7   tp=1 cp=2   SERVING")) << TextOf(lines);
  EXPECT_TRUE(Has(lines, "  40.0 steps/s")) << TextOf(lines);
  EXPECT_TRUE(Has(lines, "queue 3   KV ████░░░░  52 % of 200 blocks")) << TextOf(lines);
  EXPECT_TRUE(Has(lines, "0     *  w0")) << TextOf(lines);
  EXPECT_TRUE(Has(lines, "918,204     40.0  ████░░░░  52 %")) << TextOf(lines);
  EXPECT_TRUE(Has(lines, "event 8"));
  EXPECT_EQ(lines.size(), 24u);
}

TEST(TopLines, TheRunningOperationStandsAboveTheReplicas) {
  TopFrame frame = Frame(2);
  auto* operation = frame.operations.add_operations();
  operation->set_state(v1::OPERATION_STATE_RUNNING);
  operation->set_kind(v1::OPERATION_KIND_DRAIN_WORKER);
  operation->set_summary("drain w1");
  EXPECT_TRUE(Has(TopLines(frame, {.columns = 80, .rows = 24}), "drain 'drain w1' runs for "));
  EXPECT_EQ(TopJson(frame)["operations"][0]["state"], "RUNNING");
}

TEST(TopLines, AWideScreenShowsMoreOfEveryWorker) {
  const auto lines = TopLines(Frame(2), {.columns = 200, .rows = 50});
  for (const char* part : {"TOKENS/S", "KV BLOCKS", "52 / 100", "PHASE", "event 0"}) {
    EXPECT_TRUE(Has(lines, part)) << part << "\n" << TextOf(lines);
  }
}

TEST(TopLines, LongNamesAreCutSoThatTheOtherColumnsStay) {
  const auto lines = TopLines(Frame(2, std::string(60, 'n')), {.columns = 80, .rows = 24});
  EXPECT_TRUE(Has(lines, "nnn…")) << TextOf(lines);
  EXPECT_TRUE(Has(lines, "52 %  0 ms\n")) << TextOf(lines);
}

TEST(TopLines, WhatDoesNotFitIsLeftOutAndSaidSo) {
  const auto lines = TopLines(Frame(60), {.columns = 80, .rows = 24});
  EXPECT_TRUE(Has(lines, "more lines: make the terminal taller")) << TextOf(lines);
  EXPECT_TRUE(Has(lines, "event 8")) << "the latest events stay";
  EXPECT_FALSE(Has(lines, "w59"));
}

TEST(TopLines, WithoutRowsEverythingIsThere) {
  const auto lines = TopLines(Frame(60), {.columns = 80, .rows = 0});
  EXPECT_TRUE(Has(lines, "w59"));
  EXPECT_FALSE(Has(lines, "q quits"));
}

TEST(TopLines, NothingThatOthersSayMovesTheCursor) {
  TopFrame frame = Frame(1);
  frame.events.back().set_message("a\x1b[2Jb\nc");
  const auto lines = TopLines(frame, {.columns = 80, .rows = 24});
  EXPECT_TRUE(Has(lines, "a?[2Jb?c")) << TextOf(lines);
}

TEST(TopJson, HasRatesPerReplicaAndWorker) {
  const Json json = TopJson(Frame(2));
  EXPECT_DOUBLE_EQ(json["replicas"][0]["steps_per_second"].get<double>(), 40);
  EXPECT_EQ(json["replicas"][0]["queued_requests"], 3);
  EXPECT_EQ(json["replicas"][0]["kv_blocks_total"], 200);
  EXPECT_DOUBLE_EQ(json["workers"][1]["steps_per_second"].get<double>(), 40);
}

}  // namespace
}  // namespace muster::ctl
