#include "worker/engine/engine.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

// Steps of so many rows go on at about the rate of a long prompt.
constexpr int kPrefillRows = 64;
// Of which the shortest counts.
constexpr int kRoundTrips = 3;

// The same failure, for a request whose KV blocks may have been written.
absl::Status AfterTheStamp(const absl::Status& status, Epoch epoch) {
  ErrorDetail detail = DetailOf(status);
  detail.epoch = epoch;
  detail.kv_written = true;
  return MakeError(status.code(), status.message(), detail);
}

// Why an epoch ends, to whoever it does not serve any more: another may.
absl::Status EndOf(const absl::Status& reason, Epoch epoch) {
  ErrorDetail detail = DetailOf(reason);
  if (detail.epoch == Epoch()) detail.epoch = epoch;
  detail.retriable = true;
  return MakeError(reason.code(), reason.message(), detail);
}

}  // namespace

Engine::Engine(const Options& options, std::unique_ptr<SequenceTable> sequences)
    : options_(options), queue_(options.queue), sequences_(std::move(sequences)) {
  NoteCapacity();
}

void Engine::Forward(ForwardBatch batch, ForwardCall call) {
  if (absl::Status refused = CheckBatch(batch, options_.limits); !refused.ok()) {
    queue_.Renew(batch.client_id);
    call.done(refused);
  } else {
    queue_.Push(std::move(batch), std::move(call));
  }
}

void Engine::Free(FreeOrder order, RequestQueue::Done<int> done) {
  absl::Status refused = CheckId("the client id", order.client_id);
  for (const std::string& id : order.sequence_ids) {
    if (refused.ok()) refused = CheckId("a sequence id", id);
  }
  if (!refused.ok()) {
    done(refused);
  } else {
    queue_.Push(std::move(order), std::move(done));
  }
}

void Engine::Fork(ForkOrder order, RequestQueue::Done<Forked> done) {
  absl::Status refused = CheckId("the client id", order.client_id);
  if (refused.ok()) refused = CheckId("the sequence id", order.sequence_id);
  if (refused.ok()) refused = CheckId("the new sequence id", order.new_sequence_id);
  if (!refused.ok()) {
    done(refused);
  } else {
    queue_.Push(std::move(order), std::move(done));
  }
}

Capacity Engine::capacity() const {
  absl::MutexLock lock(&mu_);
  return capacity_;
}

void Engine::NoteCapacity() {
  const Capacity capacity = sequences_->capacity();
  const int waiting = queue_.waiting();
  bool watched = false;
  {
    absl::MutexLock lock(&mu_);
    watched = !watchers_.empty() && (!(capacity == capacity_) || waiting != waiting_);
    capacity_ = capacity;
    waiting_ = waiting;
  }
  if (watched) TellWatchers(absl::OkStatus());
}

void Engine::NoteChange() {
  NoteCapacity();
  means_->on_change(means_->relay.last(), sequences_->used_blocks(0));
}

void Engine::TellWatchers(const absl::Status& end) {
  std::vector<std::shared_ptr<CapacityWatcher>> watchers;
  {
    absl::MutexLock lock(&mu_);
    watchers_.remove_if([](const auto& watcher) { return watcher.expired(); });
    for (const auto& watcher : watchers_) watchers.push_back(watcher.lock());
  }
  for (const auto& watcher : watchers) {
    if (watcher != nullptr) (*watcher)(end);
  }
}

void Engine::WatchCapacity(std::weak_ptr<CapacityWatcher> watcher) {
  {
    absl::MutexLock lock(&mu_);
    watchers_.remove_if([](const auto& it) { return it.expired(); });
    watchers_.push_back(watcher);
  }
  // Stop may not have seen it.
  const absl::Status stopped = queue_.stopped();
  const auto alive = watcher.lock();
  if (!stopped.ok() && alive != nullptr) (*alive)(stopped);
}

void Engine::Stop(const absl::Status& reason) {
  TellWatchers(queue_.Stop(EndOf(reason, queue_.epoch())));
  DropTurns();
}

void Engine::TakeTurn(Turn turn) {
  {
    absl::MutexLock lock(&mu_);
    turns_.push_back(std::move(turn));
  }
  queue_.Interrupt();
  // Stop may not have seen it.
  if (!queue_.stopped().ok()) DropTurns();
}

void Engine::DropTurns() {
  // Destroyed outside of the lock.
  std::deque<Turn> dropped;
  absl::MutexLock lock(&mu_);
  dropped.swap(turns_);
}

absl::Status Engine::Run(const Means& means) {
  absl::MutexLock lock(&run_mu_);
  means_ = &means;
  handed_over_ = false;
  const absl::StatusOr<int64_t> rebuilt = Rebuild();
  if (!rebuilt.ok()) {
    Stop(FailureOf(rebuilt.status()));
    return rebuilt.status();
  }
  NoteCapacity();
  means.on_begun(*rebuilt);
  while (!handed_over_) {
    MUSTER_ASSIGN_OR_RETURN(RequestQueue::Work work, queue_.Next());
    const absl::Status failed = std::visit([this](auto& it) { return Handle(it); }, work);
    if (!failed.ok()) {
      Stop(failed);
      return failed;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Engine::Rebuild() {
  const int64_t total = sequences_->tokens_to_rebuild();
  while (const auto batch = sequences_->NextRebuild(options_.limits.max_rows)) {
    MUSTER_RETURN_IF_ERROR(sequences_->Append(*batch, steps_));
    MUSTER_RETURN_IF_ERROR(RunSteps(*batch).status());
    means_->on_rebuild(total - sequences_->tokens_to_rebuild(), total);
  }
  return total;
}

absl::Status Engine::Handle(RequestQueue::Interruption&) {
  std::deque<Turn> turns;
  {
    absl::MutexLock lock(&mu_);
    turns.swap(turns_);
  }
  while (!turns.empty() && !handed_over_) {
    const absl::StatusOr<TurnEnd> end = turns.front()(*sequences_, *means_);
    turns.pop_front();
    if (!end.ok()) return FailureOf(end.status());
    handed_over_ = *end == TurnEnd::kHandOver;
    NoteCapacity();
  }
  return absl::OkStatus();
}

absl::Status Engine::Handle(RequestQueue::Describe& request) {
  const absl::StatusOr<absl::Duration> round_trip = RoundTrip();
  if (!round_trip.ok()) {
    queue_.Answer(request, FailureOf(round_trip.status()));
    return FailureOf(round_trip.status());
  }
  CacheSummary summary = sequences_->Summary();
  summary.round_trip = *round_trip;
  summary.prefill_tokens_per_second = prefill_rate_;
  queue_.Answer(request, summary);
  return absl::OkStatus();
}

absl::StatusOr<absl::Duration> Engine::RoundTrip() {
  Step nothing;
  nothing.kind = StepKind::kSeal;
  absl::Duration shortest = absl::InfiniteDuration();
  for (int i = 0; i < kRoundTrips; ++i) {
    const absl::Time begun = Clock::Real().Now();
    MUSTER_RETURN_IF_ERROR(means_->relay.Send(nothing, means_->step_timeout));
    MUSTER_RETURN_IF_ERROR(means_->relay.AwaitTaken(means_->step_timeout));
    shortest = std::min(shortest, Clock::Real().Now() - begun);
  }
  return shortest;
}

absl::Status Engine::Handle(RequestQueue::Free& request) {
  const FreeOrder& order = request.order;
  const int freed = order.all ? sequences_->FreeAll(order.client_id)
                              : sequences_->Free(order.client_id, order.sequence_ids);
  NoteChange();
  queue_.Answer(request, freed);
  return absl::OkStatus();
}

absl::Status Engine::Handle(RequestQueue::Fork& request) {
  steps_.assign(1, {});
  absl::StatusOr<Forked> forked = sequences_->Fork(request.order, steps_[0].step);
  if (forked.ok()) {
    ForwardResult result;
    if (const absl::Status failed = RunStep({}, steps_[0], result); !failed.ok()) {
      queue_.Answer(request, FailureOf(failed));
      return FailureOf(failed);
    }
    forked->epoch = means_->epoch;
    NoteChange();
  }
  queue_.Answer(request, forked);
  return absl::OkStatus();
}

absl::Status Engine::Handle(RequestQueue::Expired& expired) {
  for (std::string& client : expired.clients) {
    const int64_t before = sequences_->used_blocks();
    const int freed = sequences_->FreeAll(client);
    if (freed == 0) continue;
    options_.counters->expired_clients.Add();
    means_->on_expired({.client_id = std::move(client),
                        .lease = options_.queue.client_lease,
                        .sequences = freed,
                        .kv_blocks = before - sequences_->used_blocks()});
    NoteChange();
  }
  return absl::OkStatus();
}

absl::Status Engine::Handle(const std::shared_ptr<RequestQueue::Forward>& request) {
  const absl::Time begun = Clock::Real().Now();
  absl::Status refused = queue_.StillWanted(*request);
  if (refused.ok()) refused = sequences_->Append(request->batch, steps_);
  if (!refused.ok()) {
    NoteCapacity();
    queue_.Answer(*request, refused);
    return absl::OkStatus();
  }
  absl::StatusOr<ForwardResult> result = RunSteps(request->batch);
  if (!result.ok()) {
    const absl::Status failed = FailureOf(result.status());
    queue_.Answer(*request, AfterTheStamp(failed, means_->epoch));
    return failed;
  }
  result->queue_time = begun - request->arrived;
  NoteTimes(*request, *result);
  NoteChange();
  queue_.Answer(*request, std::make_shared<const ForwardResult>(*std::move(result)));
  return absl::OkStatus();
}

void Engine::NoteTimes(const RequestQueue::Forward& request, const ForwardResult& result) {
  const absl::Duration request_time = Clock::Real().Now() - request.arrived;
  options_.counters->requests.Add();
  options_.counters->queue_time.Observe(result.queue_time);
  options_.counters->request_time.Observe(request_time);
  if (!means_->spans.on()) return;
  Span span{.kind = SpanKind::kRequest,
            .step = result.step,
            .begin = request.arrived,
            .duration = request_time,
            .request_id = request.batch.request_id,
            .trace = request.batch.trace};
  means_->spans.Write(span);
  span.kind = SpanKind::kQueue;
  span.duration = result.queue_time;
  means_->spans.Write(span);
}

absl::Status Engine::FailureOf(const absl::Status& status) const {
  const absl::Status known = means_->known_failure();
  return EndOf(known.ok() ? status : known, means_->epoch);
}

absl::StatusOr<ForwardResult> Engine::RunSteps(const ForwardBatch& batch) {
  ForwardResult result{.epoch = means_->epoch};
  result.outputs.resize(batch.slices.size());
  for (PlannedStep& planned : steps_) {
    MUSTER_RETURN_IF_ERROR(RunStep(batch, planned, result));
    AnswerStep(batch, planned, result);
  }
  return result;
}

absl::Status Engine::RunStep(const ForwardBatch& batch, PlannedStep& planned,
                             ForwardResult& result) {
  std::vector<absl::Span<const float>> hidden;
  if (planned.step.from_hidden != 0) {
    for (const int slice : planned.slices) hidden.push_back(batch.slices[slice].hidden_states);
  }
  const absl::Time begun = Clock::Real().Now();
  MUSTER_RETURN_IF_ERROR(means_->relay.Send(planned.step, means_->step_timeout));
  const absl::Duration relay_time = Clock::Real().Now() - begun;
  result.relay_time += relay_time;
  options_.counters->relay_time.Observe(relay_time);
  MUSTER_RETURN_IF_ERROR(means_->runner.Run(planned.step, hidden));
  result.step = planned.step.number;
  result.bucket += means_->runner.rows_run();
  result.device_time += means_->runner.device_time();
  means_->runner.WriteSpans(planned.step, begun, relay_time);
  const int rows = static_cast<int>(planned.step.rows.size());
  if (rows >= kPrefillRows) {
    prefill_rate_ = rows / std::max(absl::ToDoubleSeconds(means_->runner.device_time()), 1e-9);
  }
  means_->on_tokens(rows);
  return absl::OkStatus();
}

void Engine::AnswerStep(const ForwardBatch& batch, const PlannedStep& planned,
                        ForwardResult& result) {
  const int64_t width = options_.limits.hidden;
  const float* hidden = means_->runner.hidden_states();
  int output = 0;
  for (const int index : planned.slices) {
    const SequenceSlice& slice = batch.slices[index];
    SliceOutput& answer = result.outputs[index];
    if (OutputOf(slice, 0).has_value()) {
      // A sequence that cannot be sampled is its own fault: the step ran, and the others have
      // theirs.
      auto sampled = means_->runner.Answer(planned.step, output++, slice);
      answer = sampled.ok() ? *std::move(sampled)
                            : SliceOutput{.error = AfterTheStamp(sampled.status(), result.epoch)};
    }
    if (planned.step.hidden_of < 0) continue;
    const int64_t numbers = PositionsOf(slice, options_.limits) * width;
    answer.hidden_states.assign(hidden, hidden + numbers);
    hidden += numbers;
  }
}

}  // namespace muster
