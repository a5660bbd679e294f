#include "client/ctl/operation_session.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "client/ctl/operation_display.h"
#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

v1::Operation Operation(v1::ResizeStage stage, const char* phase = "") {
  v1::Operation operation;
  operation.set_id("ctl-1");
  operation.set_kind(v1::OPERATION_KIND_SCALE_CONTEXT_PARALLEL);
  operation.set_state(v1::OPERATION_STATE_RUNNING);
  operation.set_summary("cp 2 to 4");
  auto* resize = operation.add_replicas();
  resize->set_stage(stage);
  resize->set_from_epoch(1);
  resize->set_to_epoch(2);
  for (uint32_t rank : {0, 1}) {
    auto* progress = resize->add_ranks();
    progress->set_rank(rank);
    progress->set_worker_id(rank == 0 ? "w0" : "w2");
    progress->mutable_progress()->set_phase(phase);
    progress->mutable_progress()->set_done(1);
    progress->mutable_progress()->set_total(2);
  }
  return operation;
}

// What a display wrote of an operation's life, a second per state.
std::string Life(bool live) {
  std::FILE* const file = std::tmpfile();
  {
    OperationDisplay display({.out = file, .live = live});
    absl::Time now = absl::UnixEpoch();
    for (const auto& state :
         {Operation(v1::RESIZE_STAGE_WAITING), Operation(v1::RESIZE_STAGE_PREPARING, "load"),
          Operation(v1::RESIZE_STAGE_PREPARING, "warmup/exchange"),
          Operation(v1::RESIZE_STAGE_ACTIVATING, "activate/copy"),
          Operation(v1::RESIZE_STAGE_RELEASING), Operation(v1::RESIZE_STAGE_DONE)}) {
      display.Show(state, now);
      display.Show(state, now);
      now += absl::Seconds(1);
    }
    display.Finish();
  }
  std::string text(static_cast<size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  EXPECT_EQ(std::fread(text.data(), 1, text.size(), file), text.size());
  std::fclose(file);
  return text;
}

TEST(OperationDisplay, RedirectedItTellsALinePerPhase) {
  EXPECT_EQ(Life(/*live=*/false),
            "scale-cp   cp 2 to 4   operation ctl-1\n"
            "  load                                                               1.0 s\n"
            "  warmup                                                             1.0 s\n"
            "  activate   epoch 1 → 2                                             1.0 s\n"
            "  release                                                            1.0 s\n");
}

TEST(OperationDisplay, OnATerminalRanksMoveBelowTheLinesThatStay) {
  const std::string text = Life(/*live=*/true);
  EXPECT_NE(text.find("             rank 0   w0  warmup/exchange   ██████████░░░░░░░░░░  50 %\n"),
            std::string::npos)
      << text;
  // Two ranks and their heading are rewritten.
  EXPECT_NE(text.find("\033[3A\r\033[J  load"), std::string::npos) << text;
  EXPECT_EQ(text.rfind("\033[", text.size()) < text.rfind("  release"), true) << text;
}

TEST(OutcomeOf, ARollbackNamesTheCulpritAndWhatServes) {
  v1::Operation operation = Operation(v1::RESIZE_STAGE_ROLLED_BACK);
  operation.set_state(v1::OPERATION_STATE_ROLLED_BACK);
  operation.mutable_failure()->set_code(14);
  operation.mutable_failure()->set_message("rank 2 (worker w2) was lost in phase load");
  EXPECT_STATUS(OutcomeOf(operation), absl::StatusCode::kUnavailable,
                "cp 2 to 4 was rolled back: rank 2 (worker w2) was lost in phase load; epoch 1 "
                "still serves");
  operation.mutable_failure()->set_message("no; epoch 1 still serves");
  EXPECT_EQ(OutcomeOf(operation).message(), "cp 2 to 4 was rolled back: no; epoch 1 still serves");
}

TEST(OutcomeOf, AFailureSaysThatTheReplicaIsFormedAgain) {
  v1::Operation operation = Operation(v1::RESIZE_STAGE_FAILED);
  operation.set_state(v1::OPERATION_STATE_FAILED);
  operation.mutable_failure()->set_code(14);
  operation.mutable_failure()->set_message("the leader is gone");
  EXPECT_STATUS(OutcomeOf(operation), absl::StatusCode::kUnavailable,
                "cp 2 to 4 failed: the leader is gone; the replica is formed again");
}

TEST(OutcomeOf, WhatTookEffectIsOk) {
  v1::Operation operation = Operation(v1::RESIZE_STAGE_DONE);
  operation.set_state(v1::OPERATION_STATE_DONE);
  EXPECT_OK(OutcomeOf(operation));
}

TEST(NewRequestId, IsAnotherEveryTime) { EXPECT_NE(NewRequestId(), NewRequestId()); }

}  // namespace
}  // namespace muster::ctl
