#include "base/wire_operation_json.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

TEST(OperationJson, HasEveryFactWithItsUnit) {
  v1::Operation operation;
  operation.set_id("a");
  operation.set_kind(v1::OPERATION_KIND_SCALE_CONTEXT_PARALLEL);
  operation.set_state(v1::OPERATION_STATE_ROLLED_BACK);
  operation.mutable_started()->set_seconds(1);
  operation.mutable_ended()->set_seconds(3);
  operation.mutable_failure()->set_message("w2 is gone");
  operation.mutable_failure()->mutable_detail()->set_reason(v1::ERROR_REASON_RANK_LOST);
  auto* resize = operation.add_replicas();
  resize->set_stage(v1::RESIZE_STAGE_ROLLED_BACK);
  resize->set_to_epoch(2);
  resize->set_note("buckets 8 1");
  resize->mutable_pause()->set_nanos(4500000);
  resize->mutable_copy_time()->set_nanos(1000000);
  resize->add_ranks()->mutable_progress()->set_phase("load");
  const Json json = OperationJson(operation);
  EXPECT_EQ(json["kind"], "SCALE_CONTEXT_PARALLEL");
  EXPECT_EQ(json["state"], "ROLLED_BACK");
  EXPECT_EQ(json["took_ms"], 2000);
  EXPECT_EQ(json["failure"]["detail"]["reason"], "RANK_LOST");
  const Json& replica = json["replicas"][0];
  EXPECT_EQ(replica["stage"], "ROLLED_BACK");
  EXPECT_EQ(replica["note"], "buckets 8 1");
  EXPECT_EQ(replica["pause_ms"], 4.5);
  EXPECT_EQ(replica["copy_ms"], 1);
  EXPECT_EQ(replica["ranks"][0]["progress"]["phase"], "load");
}

TEST(OperationJson, OneThatRunsHasNoEnd) {
  v1::Operation operation;
  operation.set_state(v1::OPERATION_STATE_RUNNING);
  const Json json = OperationJson(operation);
  EXPECT_FALSE(json.contains("ended") || json.contains("took_ms") || json.contains("failure"));
}

TEST(OperationJson, APlanHasItsChanges) {
  v1::PlanTopologyResponse plan;
  auto* change = plan.add_changes();
  change->add_ranks()->set_role(v1::RankChange::ROLE_LEAVER);
  change->add_flows()->set_bytes(5);
  change->mutable_predicted_pause()->set_seconds(1);
  const Json json = PlanWithChangesJson(plan)["changes"][0];
  EXPECT_EQ(json["ranks"][0]["role"], "LEAVER");
  EXPECT_EQ(json["flows"][0]["bytes"], 5);
  EXPECT_EQ(json["predicted_pause_ms"], 1000);
}

TEST(EventWords, AreReadable) {
  EXPECT_EQ(EventWords(v1::EVENT_KIND_OPERATION_STARTED), "operation started");
  EXPECT_EQ(EventWords(v1::EVENT_KIND_ROLLED_BACK), "rolled back");
}

}  // namespace
}  // namespace muster
