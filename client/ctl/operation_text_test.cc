#include "client/ctl/operation_text.h"

#include <gtest/gtest.h>

namespace muster::ctl {
namespace {

v1::ParallelConfig Config(uint32_t tp, uint32_t cp) {
  v1::ParallelConfig config;
  config.set_tp(tp);
  config.set_cp(cp);
  return config;
}

v1::ReplicaResize Resize() {
  v1::ReplicaResize resize;
  resize.set_stage(v1::RESIZE_STAGE_DONE);
  resize.set_from_epoch(1);
  resize.set_to_epoch(2);
  *resize.mutable_from() = Config(1, 2);
  *resize.mutable_to() = Config(1, 4);
  resize.mutable_prepare_time()->set_seconds(1);
  resize.mutable_prepare_time()->set_nanos(100000000);
  resize.mutable_pause()->set_nanos(4000000);
  resize.set_kv_blocks_moved(21);
  resize.set_kv_blocks_kept(20);
  resize.set_kv_bytes_moved(7 << 20);
  resize.mutable_copy_time()->set_nanos(1000000);
  resize.set_sequences(3);
  return resize;
}

v1::Operation Operation(v1::OperationState state, int64_t started, int64_t ended) {
  v1::Operation operation;
  operation.set_id("ctl-1");
  operation.set_kind(v1::OPERATION_KIND_SCALE_CONTEXT_PARALLEL);
  operation.set_state(state);
  operation.set_summary("cp 2 to 4");
  operation.mutable_started()->set_seconds(started);
  if (ended > 0) operation.mutable_ended()->set_seconds(ended);
  *operation.add_replicas() = Resize();
  return operation;
}

TEST(OperationText, AChangeOfShapeNamesTheSizesThatChange) {
  EXPECT_EQ(ShapeChange(Config(1, 2), Config(1, 4)), "cp 2 → 4");
  EXPECT_EQ(ShapeChange(Config(1, 2), Config(3, 1)), "tp 1 → 3, cp 2 → 1");
  EXPECT_EQ(ShapeChange(Config(1, 2), Config(1, 2)), "same sizes");
}

TEST(OperationText, WhatChangesBesideTheSizesComesFirst) {
  v1::ReplicaResize resize = Resize();
  resize.set_note("worker w1 drained");
  EXPECT_EQ(ChangeText(resize), "worker w1 drained, cp 2 → 4");
  *resize.mutable_to() = resize.from();
  resize.set_note("buckets 32 16 to 8 1");
  EXPECT_EQ(ResizeSummary(resize).substr(0, 30), "buckets 32 16 to 8 1: prepare ");
  v1::ReplicaChange change;
  EXPECT_EQ(ChangeText(change), "same sizes");
  change.set_note("buckets 8 1");
  EXPECT_EQ(ChangeText(change), "buckets 8 1");
}

TEST(OperationText, WhatChangesNoReplicaThatServesEndsWithALineToo) {
  v1::Operation operation = Operation(v1::OPERATION_STATE_DONE, 100, 102);
  operation.set_summary("replicas 1 to 2");
  EXPECT_EQ(DoneLine(operation), "replicas 1 to 2: done in 2.0 s");
}

TEST(OperationText, RunsOfRanksAreJoined) {
  EXPECT_EQ(RankList({0, 1, 2, 3, 5}), "0-3 5");
  EXPECT_EQ(RankList({0, 1}), "0 1");
  EXPECT_EQ(RankList({}), "");
}

TEST(OperationText, ASummaryHasTimesBlocksBytesAndBandwidth) {
  EXPECT_EQ(ResizeSummary(Resize()),
            "cp 2 → 4: prepare 1.1 s, pause 4 ms, 21 KV blocks moved (7.0 MiB, 6.8 GiB/s), "
            "20 kept, 3 sequences");
}

TEST(OperationText, ASummaryWithoutKvLeavesBytesOutAndTellsOfWhatWasRebuilt) {
  v1::ReplicaResize resize = Resize();
  resize.set_kv_bytes_moved(0);
  resize.set_kv_blocks_moved(0);
  resize.set_kv_blocks_kept(0);
  resize.set_tokens_rebuilt(1200);
  resize.set_sequences_dropped(1);
  EXPECT_EQ(ResizeSummary(resize),
            "cp 2 → 4: prepare 1.1 s, pause 4 ms, 0 KV blocks moved, 0 kept, 3 sequences, "
            "1,200 tokens computed again, 1 sequence dropped");
}

TEST(OperationText, TheRankFurthestBehindGivesThePhase) {
  v1::ReplicaResize resize;
  resize.set_stage(v1::RESIZE_STAGE_PREPARING);
  EXPECT_EQ(StageText(resize), "prepare");
  for (const char* phase : {"capture/graphs", "load", "warmup/exchange"}) {
    resize.add_ranks()->mutable_progress()->set_phase(phase);
  }
  EXPECT_EQ(SlowestPhase(resize), "load");
  EXPECT_EQ(StageText(resize), "prepare load");
}

TEST(OperationText, TheRunningOneIsALine) {
  v1::Operation operation = Operation(v1::OPERATION_STATE_RUNNING, 100, 0);
  operation.mutable_replicas(0)->set_stage(v1::RESIZE_STAGE_ACTIVATING);
  EXPECT_EQ(RunningLine(operation, absl::FromUnixSeconds(112)),
            "scale-cp 'cp 2 to 4' runs for 12 s: replica 0 activate (ctl-1)");
}

TEST(OperationText, TheLastResizeIsTheNewestThatTookEffect) {
  v1::ListOperationsResponse operations;
  *operations.add_operations() = Operation(v1::OPERATION_STATE_ROLLED_BACK, 5000, 5001);
  operations.mutable_operations(0)->mutable_replicas(0)->set_stage(v1::RESIZE_STAGE_ROLLED_BACK);
  *operations.add_operations() = Operation(v1::OPERATION_STATE_DONE, 100, 1000);
  const absl::Time now = absl::FromUnixSeconds(1000 + 41 * 60 + 7);
  EXPECT_EQ(LastResize(operations, now), "last resize: cp 2 → 4, 41 min ago, pause 4 ms");
  EXPECT_EQ(RunningOperation(operations), nullptr);
  EXPECT_EQ(LastResize({}, now), std::nullopt);
}

TEST(OperationText, AgesAreInTheLargestUnit) {
  EXPECT_EQ(Ago(-absl::Seconds(1)), "0 s ago");
  EXPECT_EQ(Ago(absl::Seconds(59)), "59 s ago");
  EXPECT_EQ(Ago(absl::Hours(3) + absl::Minutes(59)), "3 h ago");
  EXPECT_EQ(Ago(absl::Hours(50)), "2 d ago");
}

}  // namespace
}  // namespace muster::ctl
