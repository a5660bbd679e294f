#include "worker/engine/engine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

// The same failure, for a request whose KV blocks may have been written.
absl::Status AfterTheStamp(const absl::Status& status, Epoch epoch) {
  ErrorDetail detail = DetailOf(status);
  detail.epoch = epoch;
  detail.kv_written = true;
  return MakeError(status.code(), status.message(), detail);
}

}  // namespace

Engine::Engine(const Options& options, SequenceTable& sequences, RelaySender& relay,
               StepRunner& runner)
    : options_(options), sequences_(sequences), relay_(relay), runner_(runner) {
  NoteCapacity();
}

absl::Status Engine::CheckOpen(std::optional<Epoch> expected) const {
  MUSTER_RETURN_IF_ERROR(stopped_);
  if (!open_) {
    return MakeError(
        absl::StatusCode::kUnavailable,
        absl::StrCat("epoch ", options_.epoch.value(), " takes no requests now"),
        {.reason = ErrorReason::kWrongState, .epoch = options_.epoch, .retriable = true});
  }
  if (expected.has_value() && *expected != options_.epoch) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("epoch ", expected->value(), " is not served; epoch ",
                                  options_.epoch.value(), " is"),
                     {.reason = ErrorReason::kStaleEpoch, .epoch = options_.epoch});
  }
  return absl::OkStatus();
}

void Engine::Forward(ForwardBatch batch, ForwardDone done) {
  absl::Status refusal = CheckBatch(batch, options_.limits);
  if (refusal.ok()) {
    absl::MutexLock lock(&mu_);
    refusal = CheckOpen(batch.expected_epoch);
    if (refusal.ok()) {
      queue_.push_back(ForwardRequest{std::move(batch), std::move(done), absl::Now()});
      return;
    }
  }
  done(refusal);
}

void Engine::Free(std::string client_id, std::vector<std::string> sequence_ids,
                  std::optional<Epoch> expected_epoch, FreeDone done) {
  absl::Status refusal;
  {
    absl::MutexLock lock(&mu_);
    refusal = CheckOpen(expected_epoch);
    if (refusal.ok()) {
      queue_.push_back(FreeRequest{std::move(client_id), std::move(sequence_ids), std::move(done)});
      return;
    }
  }
  done(refusal);
}

Capacity Engine::capacity() const {
  absl::MutexLock lock(&mu_);
  return capacity_;
}

void Engine::NoteCapacity() {
  const Capacity capacity = sequences_.capacity();
  absl::MutexLock lock(&mu_);
  capacity_ = capacity;
}

void Engine::Open() {
  absl::MutexLock lock(&mu_);
  open_ = true;
}

absl::Status Engine::Drain(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  open_ = false;
  const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return !stopped_.ok() || (queue_.empty() && !busy_);
  };
  if (!mu_.AwaitWithTimeout(absl::Condition(&idle), timeout)) {
    return absl::DeadlineExceededError(absl::StrCat(queue_.size() + (busy_ ? 1 : 0),
                                                    " requests are still in flight after ",
                                                    absl::FormatDuration(timeout)));
  }
  return absl::OkStatus();
}

void Engine::Stop(const absl::Status& reason) {
  std::deque<Request> waiting;
  absl::Status why;
  {
    absl::MutexLock lock(&mu_);
    if (stopped_.ok()) stopped_ = reason;
    why = stopped_;
    open_ = false;
    waiting.swap(queue_);
  }
  for (Request& request : waiting) std::visit([&](auto& it) { it.done(why); }, request);
}

absl::Status Engine::Run() {
  while (true) {
    Request request;
    {
      absl::MutexLock lock(&mu_);
      busy_ = false;
      const auto wanted = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
        return !stopped_.ok() || !queue_.empty();
      };
      mu_.Await(absl::Condition(&wanted));
      MUSTER_RETURN_IF_ERROR(stopped_);
      request = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
    }
    if (auto* free = std::get_if<FreeRequest>(&request)) {
      Handle(*free);
    } else if (absl::Status failed = Handle(std::get<ForwardRequest>(request)); !failed.ok()) {
      Stop(failed);
      return failed;
    }
  }
}

void Engine::Handle(FreeRequest& request) {
  const int freed = sequences_.Free(request.client_id, request.sequence_ids);
  NoteCapacity();
  options_.on_change(relay_.last());
  request.done(freed);
}

absl::Status Engine::Handle(ForwardRequest& request) {
  const absl::Time begun = absl::Now();
  if (const absl::Status refused = sequences_.Append(request.batch, step_); !refused.ok()) {
    request.done(refused);
    return absl::OkStatus();
  }
  NoteCapacity();
  absl::StatusOr<ForwardResult> result = RunStep(begun);
  if (!result.ok()) {
    request.done(AfterTheStamp(result.status(), options_.epoch));
    return result.status();
  }
  options_.on_change(relay_.last());
  result->queue_time = begun - request.arrived;
  // A sequence that cannot be sampled is its own fault: the step ran, and the epoch goes on.
  absl::StatusOr<std::vector<SliceOutput>> answers = AnswerAll(request.batch);
  if (!answers.ok()) {
    request.done(AfterTheStamp(answers.status(), options_.epoch));
    return absl::OkStatus();
  }
  result->outputs = *std::move(answers);
  request.done(std::move(result));
  return absl::OkStatus();
}

absl::StatusOr<ForwardResult> Engine::RunStep(absl::Time begun) {
  MUSTER_RETURN_IF_ERROR(relay_.Send(step_, options_.step_timeout));
  const absl::Duration relay_time = absl::Now() - begun;
  MUSTER_RETURN_IF_ERROR(runner_.Run(step_));
  return ForwardResult{.epoch = options_.epoch,
                       .step = step_.number,
                       .bucket = runner_.rows_run(),
                       .relay_time = relay_time,
                       .device_time = runner_.device_time()};
}

absl::StatusOr<std::vector<SliceOutput>> Engine::AnswerAll(const ForwardBatch& batch) {
  std::vector<SliceOutput> answers;
  int output = 0;
  for (const SequenceSlice& slice : batch.slices) {
    if (!OutputOf(slice, 0).has_value()) {
      answers.emplace_back();
      continue;
    }
    MUSTER_ASSIGN_OR_RETURN(SliceOutput answer, runner_.Answer(step_, output++, slice));
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace muster
