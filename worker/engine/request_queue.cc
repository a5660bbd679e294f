#include "worker/engine/request_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/spin_wait.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr int64_t kSpinNs = 200'000;

absl::Status Reused(const ForwardBatch& batch) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("request id ", Quoted(batch.request_id),
                                " was used for another request; each needs its own"),
                   {.reason = ErrorReason::kRequestIdReused});
}

}  // namespace

absl::Status RequestQueue::Stale(Epoch expected) const {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("epoch ", expected.value(), " is not served; epoch ", epoch_.value(), " is"),
      {.reason = ErrorReason::kStaleEpoch, .epoch = epoch_, .retriable = true});
}

absl::Status RequestQueue::CheckEpoch(std::optional<Epoch> expected) const {
  MUSTER_RETURN_IF_ERROR(stopped_);
  return !expected.has_value() || *expected == epoch_ ? absl::OkStatus() : Stale(*expected);
}

absl::Status RequestQueue::CheckOpen() const {
  if (!open_) {
    return MakeError(absl::StatusCode::kUnavailable,
                     absl::StrCat("epoch ", epoch_.value(), " takes no requests now"),
                     {.reason = ErrorReason::kWrongState, .epoch = epoch_, .retriable = true});
  }
  if (static_cast<int>(queue_.size()) < options_.max_waiting) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted,
                   absl::StrCat(queue_.size(),
                                " requests wait for the engine, which is as many as "
                                "can. Wait for answers before you ask for more"),
                   {.reason = ErrorReason::kQueueFull, .retriable = true});
}

std::optional<ForwardAnswer> RequestQueue::Recognise(const ForwardBatch& batch, uint64_t body,
                                                     ForwardCall& call, bool& joined) {
  if (const auto* answer = record_.Find(batch.client_id, batch.request_id)) {
    // Whoever forged a digest must not get outputs that its request has no slices for.
    if (answer->body != body || answer->result->outputs.size() != batch.slices.size()) {
      return Reused(batch);
    }
    return answer->result;
  }
  const auto found = in_flight_.find({batch.client_id, batch.request_id});
  if (found == in_flight_.end()) return std::nullopt;
  const Forward& running = *found->second;
  if (running.body != body || running.batch.slices.size() != batch.slices.size()) {
    return Reused(batch);
  }
  found->second->calls.push_back(std::move(call));
  joined = true;
  return std::nullopt;
}

std::optional<ForwardAnswer> RequestQueue::Admit(ForwardBatch& batch, uint64_t body,
                                                 ForwardCall& call) {
  absl::MutexLock lock(&mu_);
  leases_.Renew(batch.client_id, options_.clock->Now());
  if (!batch.request_id.empty()) {
    bool joined = false;
    auto answer = Recognise(batch, body, call, joined);
    if (answer.has_value() || joined) return answer;
  }
  // What has been answered keeps its answer, whichever epoch gave it.
  if (absl::Status refused = CheckEpoch(batch.expected_epoch); !refused.ok()) return refused;
  if (absl::Status refused = CheckOpen(); !refused.ok()) return refused;
  leases_.Hold(batch.client_id, options_.clock->Now());
  auto request = std::make_shared<Forward>();
  request->batch = std::move(batch);
  request->body = body;
  request->arrived = Clock::Real().Now();
  request->calls.push_back(std::move(call));
  const ForwardBatch& kept = request->batch;
  if (!kept.request_id.empty()) in_flight_[{kept.client_id, kept.request_id}] = request;
  queue_.push_back(std::move(request));
  ready_.store(true, std::memory_order_release);
  return std::nullopt;
}

void RequestQueue::Push(ForwardBatch batch, ForwardCall call) {
  const uint64_t body = batch.request_id.empty() ? 0 : BodyDigest(batch);
  if (const auto answer = Admit(batch, body, call)) call.done(*answer);
}

template <typename Request, typename Order, typename Result>
void RequestQueue::PushOrder(Order order, Done<Result> done) {
  absl::Status refused;
  {
    absl::MutexLock lock(&mu_);
    leases_.Renew(order.client_id, options_.clock->Now());
    refused = CheckEpoch(order.expected_epoch);
    if (refused.ok()) refused = CheckOpen();
    if (refused.ok()) {
      leases_.Hold(order.client_id, options_.clock->Now());
      queue_.push_back(Request{std::move(order), std::move(done)});
      ready_.store(true, std::memory_order_release);
      return;
    }
  }
  done(refused);
}

void RequestQueue::Push(FreeOrder order, Done<int> done) {
  PushOrder<Free>(std::move(order), std::move(done));
}

void RequestQueue::Push(ForkOrder order, Done<Forked> done) {
  PushOrder<Fork>(std::move(order), std::move(done));
}

void RequestQueue::Push(Done<CacheSummary> done) {
  absl::Status refused;
  {
    absl::MutexLock lock(&mu_);
    refused = stopped_;
    if (refused.ok()) refused = CheckOpen();
    if (refused.ok()) {
      queue_.push_back(Describe{std::move(done)});
      ready_.store(true, std::memory_order_release);
      return;
    }
  }
  done(refused);
}

void RequestQueue::Interrupt() {
  absl::MutexLock lock(&mu_);
  interrupted_ = true;
  ready_.store(true, std::memory_order_release);
}

void RequestQueue::Renew(const std::string& client) {
  absl::MutexLock lock(&mu_);
  leases_.Renew(client, options_.clock->Now());
}

void RequestQueue::Hold(const std::string& client) {
  absl::MutexLock lock(&mu_);
  leases_.Hold(client, options_.clock->Now());
}

void RequestQueue::LetGo(const std::string& client) {
  absl::MutexLock lock(&mu_);
  leases_.LetGo(client, options_.clock->Now());
}

absl::StatusOr<RequestQueue::Work> RequestQueue::Next() {
  {
    absl::MutexLock lock(&mu_);
    busy_ = false;
  }
  // A scheduler that waits for one step before it asks for the next is back before a thread that
  // went to sleep would have woken up.
  SpinUntil(kSpinNs, [this] { return ready_.load(std::memory_order_acquire); });
  absl::MutexLock lock(&mu_);
  const auto wanted = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return !stopped_.ok() || interrupted_ || !queue_.empty();
  };
  while (true) {
    MUSTER_RETURN_IF_ERROR(stopped_);
    if (std::exchange(interrupted_, false)) {
      ready_.store(!queue_.empty(), std::memory_order_relaxed);
      busy_ = true;
      return Interruption{};
    }
    const absl::Time now = options_.clock->Now();
    if (now >= leases_.next_expiry()) {
      if (std::vector<std::string> expired = leases_.TakeExpired(now); !expired.empty()) {
        busy_ = true;
        return Expired{std::move(expired)};
      }
    }
    if (!queue_.empty()) break;
    mu_.AwaitWithTimeout(absl::Condition(&wanted), leases_.next_expiry() - now);
  }
  busy_ = true;
  Work work = std::move(queue_.front());
  queue_.pop_front();
  ready_.store(!queue_.empty(), std::memory_order_relaxed);
  return work;
}

void RequestQueue::Forget(const Forward& request) {
  const ForwardBatch& batch = request.batch;
  if (batch.request_id.empty()) return;
  const auto found = in_flight_.find({batch.client_id, batch.request_id});
  if (found != in_flight_.end() && found->second.get() == &request) in_flight_.erase(found);
}

absl::Status RequestQueue::StillWanted(const Forward& request) {
  absl::MutexLock lock(&mu_);
  absl::Status given_up;
  for (const ForwardCall& call : request.calls) {
    absl::Status status = call.still_wanted();
    if (status.ok()) return status;
    given_up.Update(status);
  }
  Forget(request);
  return given_up;
}

void RequestQueue::Answer(const Forward& request, const ForwardAnswer& answer) {
  std::vector<ForwardCall> calls;
  {
    absl::MutexLock lock(&mu_);
    const ForwardBatch& batch = request.batch;
    leases_.LetGo(batch.client_id, options_.clock->Now());
    Forget(request);
    if (answer.ok() && !batch.request_id.empty()) {
      record_.Keep(batch.client_id, batch.request_id, {.body = request.body, .result = *answer});
    }
    calls = request.calls;
  }
  for (const ForwardCall& call : calls) call.done(answer);
}

void RequestQueue::Answer(const Free& request, const absl::StatusOr<int>& freed) {
  LetGo(request.order.client_id);
  request.done(freed);
}

void RequestQueue::Answer(const Fork& request, const absl::StatusOr<Forked>& forked) {
  LetGo(request.order.client_id);
  request.done(forked);
}

void RequestQueue::Answer(const Describe& request, const absl::StatusOr<CacheSummary>& summary) {
  request.done(summary);
}

std::vector<RequestQueue::Work> RequestQueue::TakeStale() {
  const auto expected = [](const Work& work) -> std::optional<Epoch> {
    if (auto* forward = std::get_if<std::shared_ptr<Forward>>(&work)) {
      return (*forward)->batch.expected_epoch;
    }
    if (auto* free = std::get_if<Free>(&work)) return free->order.expected_epoch;
    if (auto* fork = std::get_if<Fork>(&work)) return fork->order.expected_epoch;
    return std::nullopt;
  };
  std::vector<Work> stale;
  std::deque<Work> kept;
  for (Work& work : queue_) {
    if (CheckEpoch(expected(work)).ok()) {
      kept.push_back(std::move(work));
    } else {
      stale.push_back(std::move(work));
    }
  }
  queue_.swap(kept);
  return stale;
}

void RequestQueue::Serve(Epoch epoch) {
  std::vector<Work> stale;
  absl::Status reason;
  {
    absl::MutexLock lock(&mu_);
    epoch_ = epoch;
    reason = MakeError(absl::StatusCode::kFailedPrecondition,
                       absl::StrCat("epoch ", epoch.value(), " took over while the request waited"),
                       {.reason = ErrorReason::kStaleEpoch, .epoch = epoch, .retriable = true});
    if (stopped_.ok()) stale = TakeStale();
  }
  Refuse(std::move(stale), reason);
}

Epoch RequestQueue::epoch() const {
  absl::MutexLock lock(&mu_);
  return epoch_;
}

void RequestQueue::Open() {
  absl::MutexLock lock(&mu_);
  open_ = true;
}

absl::Status RequestQueue::Drain(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  open_ = false;
  const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return !stopped_.ok() || (queue_.empty() && !busy_);
  };
  if (!mu_.AwaitWithTimeout(absl::Condition(&idle), timeout)) {
    const size_t left = queue_.size() + (busy_ ? 1 : 0);
    return absl::DeadlineExceededError(
        absl::StrCat(left, left == 1 ? " request is" : " requests are", " still in flight after ",
                     absl::FormatDuration(absl::Trunc(timeout, absl::Milliseconds(1)))));
  }
  return absl::OkStatus();
}

absl::Status RequestQueue::Stop(const absl::Status& reason) {
  std::vector<Work> waiting;
  absl::Status why;
  {
    absl::MutexLock lock(&mu_);
    if (stopped_.ok()) stopped_ = reason;
    why = stopped_;
    open_ = false;
    waiting.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
    queue_.clear();
    ready_.store(true, std::memory_order_release);
  }
  Refuse(std::move(waiting), why);
  return why;
}

void RequestQueue::Refuse(std::vector<Work> waiting, const absl::Status& reason) {
  for (Work& work : waiting) {
    if (auto* forward = std::get_if<std::shared_ptr<Forward>>(&work)) Answer(**forward, reason);
    if (auto* free = std::get_if<Free>(&work)) Answer(*free, reason);
    if (auto* fork = std::get_if<Fork>(&work)) Answer(*fork, reason);
    if (auto* describe = std::get_if<Describe>(&work)) Answer(*describe, reason);
  }
}

absl::Status RequestQueue::stopped() const {
  absl::MutexLock lock(&mu_);
  return stopped_;
}

int RequestQueue::waiting() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(queue_.size());
}

int RequestQueue::in_flight() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(queue_.size()) + (busy_ ? 1 : 0);
}

int RequestQueue::clients() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(leases_.clients());
}

}  // namespace muster
