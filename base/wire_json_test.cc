#include "base/wire_json.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

TEST(WireJsonTest, EventsLeaveOutWhatDoesNotApply) {
  v1::WatchEventsResponse event;
  event.set_sequence(3);
  event.set_kind(v1::EVENT_KIND_WORKER_LOST);
  event.mutable_time()->set_seconds(1);
  event.set_worker_id("w1");
  event.set_message("gone");
  EXPECT_EQ(ToLine(EventJson(event)),
            R"({"sequence":3,"time":"1970-01-01T00:00:01Z","kind":"WORKER_LOST",)"
            R"("worker_id":"w1","message":"gone"})");
}

TEST(WireJsonTest, RankZeroIsARank) {
  v1::WatchEventsResponse event;
  event.set_rank(0);
  event.set_replica(0);
  const Json json = EventJson(event);
  EXPECT_EQ(json["rank"], 0);
  EXPECT_EQ(json["replica"], 0);
}

TEST(WireJsonTest, AReplicaHasItsFailureLedgerAndPhases) {
  v1::ReplicaStatus replica;
  replica.set_state(v1::REPLICA_STATE_FAILED);
  replica.mutable_failure()->set_message("no");
  replica.mutable_failure()->mutable_detail()->set_reason(v1::ERROR_REASON_RANK_LOST);
  auto* phase = replica.add_phases();
  phase->set_phase("load");
  phase->mutable_duration()->set_nanos(1500000);
  auto* ledger = replica.add_ledgers();
  ledger->add_buckets(8);
  auto* entry = ledger->add_entries();
  entry->set_tag("weights");
  entry->set_bytes(5);
  const Json json = ReplicaJson(replica);
  EXPECT_EQ(json["state"], "FAILED");
  EXPECT_EQ(json["failure"]["detail"]["reason"], "RANK_LOST");
  EXPECT_EQ(json["phases_ms"]["load"], 1.5);
  EXPECT_EQ(json["ledgers"][0]["bytes"]["weights"], 5);
  EXPECT_EQ(json["ledgers"][0]["buckets"], std::vector<int>{8});
  EXPECT_FALSE(json.contains("topology"));
}

TEST(WireJsonTest, BytesThatAreNoUtf8DoNotThrow) {
  EXPECT_EQ(ToLine(Json{{"text", "a\xff"}}), "{\"text\":\"a\uFFFD\"}");
}

}  // namespace
}  // namespace muster
