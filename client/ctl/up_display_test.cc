#include "client/ctl/up_display.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace muster::ctl {
namespace {

// A fleet of two ranks in its life from enlistment to serving.
FleetSnapshot MakeSnapshot() {
  FleetSnapshot snapshot;
  for (int i = 0; i < 2; ++i) {
    auto* worker = snapshot.workers.add_workers();
    worker->set_worker_id(i == 0 ? "w0" : "w1");
    worker->mutable_device()->set_kind("cpu");
    worker->mutable_device()->set_ordinal(i);
    worker->mutable_model()->set_name("Tiny");
    worker->mutable_model()->set_dtype("float32");
    worker->mutable_model()->set_layers(2);
    worker->mutable_model()->set_heads(9);
    worker->mutable_model()->set_weight_bytes(3 << 20);
  }
  auto* replica = snapshot.topology.add_replicas();
  replica->set_state(v1::REPLICA_STATE_FORMING);
  auto* topology = replica->mutable_topology();
  topology->set_epoch(1);
  topology->mutable_config()->set_tp(1);
  topology->mutable_config()->set_cp(2);
  for (uint32_t i = 0; i < 2; ++i) {
    auto* rank = topology->add_ranks();
    rank->set_rank(i);
    rank->set_cp_rank(i);
    rank->set_worker_id(i == 0 ? "w0" : "w1");
  }
  return snapshot;
}

void SetLoading(FleetSnapshot& snapshot, uint64_t done, uint64_t total) {
  for (auto& worker : *snapshot.workers.mutable_workers()) {
    worker.mutable_progress()->set_phase("load");
    worker.mutable_progress()->set_done(done);
    worker.mutable_progress()->set_total(total);
  }
}

void FinishPhase(FleetSnapshot& snapshot, const std::string& name, int milliseconds) {
  auto* phase = snapshot.topology.mutable_replicas(0)->add_phases();
  phase->set_phase(name);
  phase->mutable_duration()->set_nanos(milliseconds * 1000000);
}

void AddLedger(FleetSnapshot& snapshot) {
  auto* ledger = snapshot.topology.mutable_replicas(0)->add_ledgers();
  ledger->set_kv_blocks(1456);
  ledger->set_block_tokens(16);
  for (const auto& [tag, bytes] :
       {std::pair("kv", 64 << 20), std::pair("weights", 2 << 20), std::pair("scratch", 1024),
        std::pair("workspace/STAGE", 3 << 10), std::pair("workspace/CP", 1 << 10)}) {
    auto* entry = ledger->add_entries();
    entry->set_tag(tag);
    entry->set_bytes(static_cast<uint64_t>(bytes));
  }
}

class UpDisplayTest : public ::testing::Test {
 protected:
  ~UpDisplayTest() override { std::fclose(file_); }

  std::string Shown() {
    std::fflush(file_);
    std::string text(static_cast<size_t>(std::ftell(file_)), '\0');
    std::rewind(file_);
    EXPECT_EQ(std::fread(text.data(), 1, text.size(), file_), text.size());
    return text;
  }

  std::FILE* const file_ = std::tmpfile();
};

TEST_F(UpDisplayTest, TellsTheLifeOfAFleetInPlainLines) {
  UpDisplay display({.out = file_}, /*titled=*/false);
  FleetSnapshot snapshot = MakeSnapshot();
  SetLoading(snapshot, 1 << 20, 2 << 20);
  display.Changed(snapshot);
  FinishPhase(snapshot, "load", 400);
  FinishPhase(snapshot, "warmup", 90);
  FinishPhase(snapshot, "capture", 12);
  AddLedger(snapshot);
  display.Changed(snapshot);
  v1::GetModelResponse model;
  for (uint32_t bucket : {32, 16, 8}) model.add_buckets(bucket);
  display.Serving(snapshot, model);
  EXPECT_EQ(Shown(),
            "  model      Tiny, float32, 2 layers, 9 heads, 3.0 MiB\n"
            "  topology   epoch 1   tp=1 cp=2\n"
            "\n"
            "               rank 0  w0  cpu:0 ─┐ CP   KV blocks 0 2 4 ..\n"
            "               rank 1  w1  cpu:1 ─┘      KV blocks 1 3 5 ..\n"
            "\n"
            "  load       2.0 MiB per rank                                        0.4 s\n"
            "  warmup     vote ✓  exchange ✓  open ✓  self-test ✓  sealed         90 ms\n"
            "  capture    3 graphs (32 .. 8 rows)                                 12 ms\n"
            "  per rank   weights 2.0 MiB, workspaces 4.0 KiB (2 groups), scratch 1.0 KiB\n"
            "             KV cache 64 MiB (1,456 blocks of 16 tokens)\n"
            "  serving\n");
}

TEST_F(UpDisplayTest, MovesABarWhereLinesCanBeRewritten) {
  UpDisplay display({.out = file_, .live = true}, /*titled=*/false);
  FleetSnapshot snapshot = MakeSnapshot();
  SetLoading(snapshot, 1, 2);
  display.Changed(snapshot);
  FinishPhase(snapshot, "load", 400);
  display.Changed(snapshot);
  const std::string shown = Shown();
  const size_t half = shown.find("\r\033[K  load       █████████████░░░░░░░░░░░░░");
  ASSERT_NE(half, std::string::npos) << shown;
  EXPECT_NE(shown.find("\r\033[K  load       ██████████████████████████ ", half), std::string::npos)
      << shown;
}

TEST_F(UpDisplayTest, WithinAnotherProgramAResizeIsItsToTell) {
  UpDisplay display({.out = file_}, /*titled=*/false);
  FleetSnapshot snapshot = MakeSnapshot();
  display.Changed(snapshot);
  display.Serving(snapshot, {});
  snapshot.topology.mutable_replicas(0)->mutable_topology()->set_epoch(2);
  snapshot.new_events.emplace_back().set_kind(v1::EVENT_KIND_RESIZED);
  display.Changed(snapshot);
  const std::string shown = Shown();
  EXPECT_EQ(shown.find("epoch 2"), std::string::npos) << shown;
  EXPECT_EQ(shown.find("resized"), std::string::npos) << shown;
}

TEST_F(UpDisplayTest, NewTopologyAfterALossIsDrawnAgain) {
  UpDisplay display({.out = file_}, /*titled=*/false);
  FleetSnapshot snapshot = MakeSnapshot();
  display.Changed(snapshot);
  display.Changed(snapshot);
  snapshot.topology.mutable_replicas(0)->mutable_topology()->set_epoch(2);
  display.Changed(snapshot);
  const std::string shown = Shown();
  EXPECT_EQ(shown.find("epoch 1"), shown.rfind("epoch 1"));
  EXPECT_NE(shown.find("epoch 2"), std::string::npos);
}

}  // namespace
}  // namespace muster::ctl
