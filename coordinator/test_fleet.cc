#include "coordinator/test_fleet.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr FormingPhase kPhases[] = {FormingPhase::kAssign, FormingPhase::kLoad,
                                    FormingPhase::kWarmup, FormingPhase::kCapture,
                                    FormingPhase::kActivate};

PhaseResult ResultOf(FormingPhase phase) {
  if (phase != FormingPhase::kCapture) return {};
  return {.ledger = {{.tag = "kv", .bytes = 4096}},
          .kv_blocks = 10,
          .block_tokens = 16,
          .buckets = {8, 1},
          .agreement_digest = "00000000000000ab"};
}

}  // namespace

TestFleet::TestFleet(const ParallelConfig& config, bool replica_per_domain)
    : coordinator_(
          {.reconfiguration = {.config = config, .replica_per_domain = replica_per_domain}}, clock_,
          client_) {}

void TestFleet::Enlist(const std::string& id) { Enlist(TestWorker(id, last_incarnation_ + 1)); }

void TestFleet::EnlistAll(int count) {
  for (int i = 0; i < count; ++i) Enlist(absl::StrCat("w", i));
}

void TestFleet::Enlist(WorkerInfo worker) {
  last_incarnation_ = worker.incarnation.value();
  auto holder = std::make_shared<RecordingHolder>();
  const auto lease = coordinator_.membership().Enlist(worker, holder);
  ASSERT_OK(lease);
  const std::string id = worker.worker_id;
  members_[id] = {.worker = std::move(worker), .lease = *lease, .holder = std::move(holder)};
}

void TestFleet::Lose(const std::string& id) {
  coordinator_.membership().EndLease(members_.at(id).lease, "its connection broke");
}

void TestFleet::Heartbeat(const std::string& id, uint64_t progress,
                          std::vector<EpochReport> epochs) {
  Member& member = members_.at(id);
  member.progress = progress;
  coordinator_.membership().Heartbeat(member.lease, progress, std::move(epochs));
}

void TestFleet::Leave(const std::string& id, absl::Duration time_left) {
  coordinator_.membership().ReportLeaving(members_.at(id).lease, time_left);
}

std::vector<std::string> TestFleet::FinishDrains(const absl::StatusOr<int>& sequences) {
  std::vector<std::string> ids;
  for (const FakeWorkerClient::DrainCall& call : client_.TakeDrains()) {
    ids.push_back(call.target.placement.worker_id);
    call.done(sequences);
  }
  return ids;
}

void TestFleet::ReportExpiry(const std::string& id, const ExpiryReport& expiry) {
  coordinator_.membership().ReportExpiries(members_.at(id).lease, {expiry});
}

void TestFleet::Advance(absl::Duration by, absl::Duration step,
                        const std::vector<std::string>& frozen) {
  for (absl::Duration passed; passed < by; passed += step) {
    clock_.Advance(std::min(step, by - passed));
    for (auto& [id, member] : members_) {
      if (std::find(frozen.begin(), frozen.end(), id) == frozen.end()) {
        Heartbeat(id, member.progress);
      }
    }
    coordinator_.Tick();
  }
}

void TestFleet::TakeCalls() {
  auto calls = client_.TakePhases();
  std::move(calls.begin(), calls.end(), std::back_inserter(calls_));
}

int TestFleet::FinishPhase(FormingPhase phase) {
  TakeCalls();
  const auto split = std::stable_partition(calls_.begin(), calls_.end(),
                                           [&](const auto& call) { return call.phase != phase; });
  std::vector<FakeWorkerClient::PhaseCall> ending(std::make_move_iterator(split),
                                                  std::make_move_iterator(calls_.end()));
  calls_.erase(split, calls_.end());
  for (const auto& call : ending) call.done(ResultOf(phase));
  return static_cast<int>(ending.size());
}

FakeWorkerClient::PhaseCall TestFleet::TakeCall(FormingPhase phase, const std::string& id) {
  TakeCalls();
  const auto found = std::find_if(calls_.begin(), calls_.end(), [&](const auto& call) {
    return call.phase == phase && call.target.placement.worker_id == id;
  });
  if (found == calls_.end()) {
    ADD_FAILURE() << id << " is not in " << FormingPhaseName(phase);
    return {.on_progress = [](const Progress&) {}, .done = [](const auto&) {}};
  }
  auto call = std::move(*found);
  calls_.erase(found);
  return call;
}

void TestFleet::FinishRank(FormingPhase phase, const std::string& id,
                           absl::StatusOr<PhaseResult> result) {
  TakeCall(phase, id).done(std::move(result));
}

TestFleet::Answer TestFleet::Operate(const OperationRequest& request) {
  auto answer = std::make_shared<std::optional<absl::Status>>();
  coordinator_.fleet().StartOperation(request,
                                      [answer](const absl::Status& status) { *answer = status; });
  return answer;
}

TestFleet::Answer TestFleet::Scale(int cp, const std::string& id) {
  OperationRequest request{.id = id};
  request.sizes.cp = cp;
  return Operate(request);
}

int TestFleet::DescribeCaches(const absl::StatusOr<CacheSummary>& summary) {
  const auto asked = client_.TakeDescriptions();
  for (const auto& [target, done] : asked) done(summary);
  return static_cast<int>(asked.size());
}

void TestFleet::StartScale(int cp, const std::string& id) {
  const Answer answer = Scale(cp, id);
  ASSERT_GT(DescribeCaches(), 0);
  ASSERT_TRUE(answer->has_value());
  ASSERT_OK(**answer);
}

Operation TestFleet::operation(const std::string& id) {
  return coordinator_.fleet().FindOperation(id).value();
}

CacheSummary TestFleet::TestCache() {
  return {.blocks_by_index = {8, 8, 8, 6, 4},
          .blocks_per_rank = 100,
          .block_tokens = 16,
          .block_bytes = 2048,
          .sequences = 8,
          .tokens = 500,
          .active_sequences = 4,
          .copy_bytes_per_second = 1e9,
          .prefill_tokens_per_second = 1000,
          .round_trip = absl::Microseconds(500)};
}

void TestFleet::ReportProgress(FormingPhase phase, const std::string& id,
                               const Progress& progress) {
  TakeCalls();
  for (const auto& call : calls_) {
    if (call.phase == phase && call.target.placement.worker_id == id) call.on_progress(progress);
  }
}

void TestFleet::FormUntil(FormingPhase phase) {
  for (FormingPhase before : kPhases) {
    if (before == phase) return;
    ASSERT_GT(FinishPhase(before), 0) << "nobody is in " << FormingPhaseName(before);
  }
}

void TestFleet::Serve() {
  FormUntil(FormingPhase::kActivate);
  ASSERT_GT(FinishPhase(FormingPhase::kActivate), 0);
}

std::vector<std::string> TestFleet::Release() {
  std::vector<std::string> ids;
  for (auto& [target, done] : client_.TakeReleases()) {
    ids.push_back(target.placement.worker_id);
    done(absl::OkStatus());
  }
  return ids;
}

ReplicaStatus TestFleet::replica(int index) {
  return coordinator_.fleet().GetTopology().replicas.at(static_cast<size_t>(index));
}

std::string TestFleet::workers(int index) {
  return absl::StrJoin(
      replica(index).topology->ranks, " ",
      [](std::string* out, const RankPlacement& rank) { absl::StrAppend(out, rank.worker_id); });
}

std::vector<Event> TestFleet::events(EventKind kind) {
  std::vector<Event> events = coordinator_.fleet().events().Read(0, SIZE_MAX);
  std::erase_if(events, [&](const Event& event) { return event.kind != kind; });
  return events;
}

}  // namespace muster
