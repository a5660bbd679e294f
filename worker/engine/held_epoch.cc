#include "worker/engine/held_epoch.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace muster {
namespace {

std::string Named(const Topology& topology) {
  return absl::StrCat("epoch ", topology.epoch.value(), " of replica ", topology.replica.value());
}

absl::Status WrongState(const Topology& topology, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, message,
                   {.reason = ErrorReason::kWrongState, .epoch = topology.epoch});
}

// The state that a command needs.
WorkerState StateFor(EpochCommand command) {
  switch (command) {
    case EpochCommand::kLoad:
      return WorkerState::kAssigned;
    case EpochCommand::kWarmup:
      return WorkerState::kLoaded;
    case EpochCommand::kCapture:
      return WorkerState::kWarm;
    case EpochCommand::kActivate:
      return WorkerState::kAgreed;
    case EpochCommand::kDrain:
    case EpochCommand::kRelease:
      return WorkerState::kServing;
  }
  return WorkerState::kFailed;
}

// What is refused because the epoch has failed names the culprits of the failure.
absl::Status HasFailed(const Topology& topology, const absl::Status& failure) {
  ErrorDetail detail = DetailOf(failure);
  detail.reason = ErrorReason::kWrongState;
  detail.epoch = topology.epoch;
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat(Named(topology), " has failed: ", failure.message()), detail);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HeldEpoch>> HeldEpoch::Create(Options options,
                                                             EpochContext::Assignment assignment) {
  auto held = absl::WrapUnique(new HeldEpoch(std::move(options), assignment));
  HeldEpoch* const self = held.get();
  assignment.on_progress = [self](const Progress& progress) { self->OnProgress(progress); };
  assignment.on_failed = [self](const absl::Status&) { self->OnFailed(); };
  assignment.on_taken_over = [self] { self->OnTakenOver(); };
  assignment.on_passed_on = [self] { self->OnPassedOn(); };
  assignment.on_client_expired = [self](const ClientExpiry& expiry) {
    self->options_.listener.on_client_expired(self->topology_.replica, self->topology_.epoch,
                                              expiry);
  };
  MUSTER_ASSIGN_OR_RETURN(held->context_,
                          EpochContext::Create(self->options_.context, std::move(assignment)));
  {
    absl::MutexLock lock(&held->mu_);
    held->pin_ = std::shared_ptr<EpochContext>(held->context_.get(),
                                               [self](EpochContext*) { self->unpinned_.Notify(); });
  }
  held->thread_ = std::thread([self] { self->Prepare(); });
  return held;
}

HeldEpoch::HeldEpoch(Options options, const EpochContext::Assignment& assignment)
    : options_(std::move(options)),
      topology_(assignment.topology),
      rank_(assignment.rank),
      follows_(assignment.predecessor.has_value()) {}

absl::Status HeldEpoch::WhyNotFormed() const {
  const absl::Status failure = Status().failure;
  const ErrorReason reason = DetailOf(failure).reason;
  const bool unwanted = reason == ErrorReason::kGivenUp ||
                        (reason == ErrorReason::kUnspecified && absl::IsUnavailable(failure));
  absl::MutexLock lock(&mu_);
  const bool passes = follows_ || was_active_ || unwanted || reason == ErrorReason::kRankLost;
  return passes ? absl::OkStatus() : failure;
}

HeldEpoch::~HeldEpoch() {
  if (thread_.joinable()) thread_.join();
}

absl::Status HeldEpoch::CheckSameAssignment(const std::string& request_id, const Topology& topology,
                                            GlobalRank rank) const {
  if (request_id != options_.request_id) {
    return WrongState(topology_, absl::StrCat(Named(topology_), " is assigned already"));
  }
  if (topology == topology_ && rank == rank_) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("the request id is that of another assignment of ",
                                Named(topology_), ", to rank ", rank_.value()),
                   {.reason = ErrorReason::kInvalidRequest, .epoch = topology_.epoch});
}

void HeldEpoch::Submit(EpochCommand command, const EpochCall& call, absl::Duration timeout,
                       EpochWatcher watcher) {
  const absl::Status begun = FindOrBegin(command, call, timeout, watcher);
  if (!begun.ok()) return watcher.on_done(begun);
  if (command == EpochCommand::kRelease) Abort(GivenUp());
}

absl::StatusOr<std::shared_ptr<Handover>> HeldEpoch::BeginHandover() {
  std::shared_ptr<EpochContext> context;
  {
    absl::MutexLock lock(&mu_);
    context = pin_;
  }
  if (context != nullptr) return context->BeginHandover();
  return WrongState(topology_, absl::StrCat(Named(topology_), " is being given back"));
}

absl::Status HeldEpoch::FindOrBegin(EpochCommand command, const EpochCall& call,
                                    absl::Duration timeout, EpochWatcher& watcher) {
  absl::MutexLock lock(&mu_);
  MUSTER_ASSIGN_OR_RETURN(std::shared_ptr<EpochOperation> operation,
                          Find(command, call.request_id));
  if (operation != nullptr) {
    operation->Watch(std::move(watcher));
    return absl::OkStatus();
  }
  MUSTER_RETURN_IF_ERROR(CheckAllowed(command));
  operation = std::make_shared<EpochOperation>(command, call, timeout);
  operation->Watch(std::move(watcher));
  operations_[command] = operation;
  (command == EpochCommand::kRelease ? release_ : running_) = operation;
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<EpochOperation>> HeldEpoch::Find(
    EpochCommand command, const std::string& request_id) const {
  for (const auto& [known, operation] : operations_) {
    const bool same_id = operation->call().request_id == request_id;
    // It is given back once, whoever asks.
    if (known == command && (same_id || command == EpochCommand::kRelease)) return operation;
    if (same_id && known != command) {
      return MakeError(
          absl::StatusCode::kInvalidArgument,
          absl::StrCat("the request id of this ", EpochCommandName(command), " is that of a ",
                       EpochCommandName(known), " of ", Named(topology_)),
          {.reason = ErrorReason::kInvalidRequest, .epoch = topology_.epoch});
    }
  }
  return nullptr;
}

absl::Status HeldEpoch::CheckAllowed(EpochCommand command) const {
  if (command == EpochCommand::kRelease) return absl::OkStatus();
  const std::string refused = absl::StrCat("cannot ", EpochCommandName(command), " ",
                                           Named(topology_), " on rank ", rank_.value(), ": ");
  if (release_ != nullptr) {
    return WrongState(topology_, absl::StrCat(refused, "it is being given back"));
  }
  if (running_ != nullptr) {
    return WrongState(
        topology_,
        absl::StrCat(refused, "its ", EpochCommandName(running_->command()), " is still running"));
  }
  const EpochStatus now = StatusLocked();
  if (!now.failure.ok()) return HasFailed(topology_, now.failure);
  const WorkerState state = now.report.state;
  const WorkerState needed = StateFor(command);
  const bool drains_on = command == EpochCommand::kDrain && state == WorkerState::kDraining;
  if (state == needed || drains_on) return absl::OkStatus();
  return WrongState(topology_, absl::StrCat(refused, "it is ", WorkerStateName(state),
                                            "; this needs ", WorkerStateName(needed)));
}

void HeldEpoch::Abort(const absl::Status& reason) {
  std::shared_ptr<EpochContext> context;
  {
    absl::MutexLock lock(&mu_);
    context = pin_;
  }
  if (context != nullptr) context->Abort(reason);
}

std::shared_ptr<const ServingEpoch> HeldEpoch::serving() const {
  absl::MutexLock lock(&mu_);
  return serving_;
}

EpochStatus HeldEpoch::Status() const {
  absl::MutexLock lock(&mu_);
  return StatusLocked();
}

EpochStatus HeldEpoch::StatusLocked() const {
  if (pin_ == nullptr) return last_;
  EpochStatus status{.report = pin_->Report(),
                     .rank = rank_,
                     .ledger = pin_->ledger().Entries(),
                     .failure = pin_->failure(),
                     .topology = topology_,
                     .buckets = buckets_,
                     .block_tokens = block_tokens_,
                     .fusion = fusion_};
  status.report.buckets = buckets_;
  if (serving_ != nullptr) {
    status.capacity = serving_->engine().capacity();
    status.requests_in_flight = serving_->engine().queue().in_flight();
    status.clients = serving_->engine().queue().clients();
  }
  return status;
}

void HeldEpoch::OnProgress(const Progress& progress) {
  options_.listener.on_progress(progress);
  std::shared_ptr<EpochOperation> operation;
  {
    absl::MutexLock lock(&mu_);
    operation = running_;
  }
  if (operation != nullptr) operation->Report(progress);
}

void HeldEpoch::OnFailed() {
  absl::MutexLock lock(&mu_);
  failed_ = true;
  EndServing();
}

void HeldEpoch::EndServing() {
  serving_ = nullptr;
  if (!std::exchange(active_, false)) return;
  options_.listener.on_ended(topology_.replica, topology_.epoch);
}

absl::Status HeldEpoch::GivenUp() const {
  return MakeError(
      absl::StatusCode::kUnavailable,
      absl::StrCat(Named(topology_), " was given up by the coordinator"),
      {.reason = ErrorReason::kWrongState, .epoch = topology_.epoch, .retriable = true});
}

void HeldEpoch::Prepare() {
  while (true) {
    std::shared_ptr<EpochOperation> operation, release;
    bool taken_over = false;
    {
      absl::MutexLock lock(&mu_);
      const auto wanted = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
        return running_ != nullptr || release_ != nullptr || (failed_ && pin_ != nullptr) ||
               taken_over_;
      };
      mu_.Await(absl::Condition(&wanted));
      operation = running_;
      release = release_;
      taken_over = std::exchange(taken_over_, false);
    }
    if (taken_over) {
      if (context_ != nullptr) context_->DropSources();
      continue;
    }
    if (operation != nullptr) {
      absl::StatusOr<EpochOutcome> result = Perform(*operation);
      {
        absl::MutexLock lock(&mu_);
        running_ = nullptr;
      }
      operation->Finish(std::move(result));
      continue;
    }
    if (release != nullptr) Abort(GivenUp());
    GiveBack();
    if (release == nullptr) continue;
    options_.on_released();
    release->Finish(EpochOutcome{});
    return;
  }
}

absl::StatusOr<EpochOutcome> HeldEpoch::Perform(const EpochOperation& operation) {
  // It failed, and was given back, after the command was let in.
  if (context_ == nullptr) return HasFailed(topology_, Status().failure);
  absl::Status status;
  Takeover takeover;
  int sequences = 0;
  switch (operation.command()) {
    case EpochCommand::kLoad:
      status = context_->Load();
      break;
    case EpochCommand::kWarmup:
      status = context_->Warmup(operation.timeout());
      break;
    case EpochCommand::kCapture:
      status = Capture(operation.timeout());
      break;
    case EpochCommand::kActivate: {
      const auto taken = Activate(operation);
      status = taken.status();
      if (taken.ok()) takeover = *taken;
      break;
    }
    case EpochCommand::kDrain:
      status = Drain(operation.timeout());
      if (const auto engine = context_->engine()) sequences = engine->capacity().sequences;
      break;
    case EpochCommand::kRelease:
      break;
  }
  if (const absl::Status failure = context_->failure(); !failure.ok()) {
    GiveBack();  // whoever learns of the failure may count on it
    return failure;
  }
  MUSTER_RETURN_IF_ERROR(status);
  return EpochOutcome{.ledger = Status().ledger,
                      .captured = captured_,
                      .takeover = takeover,
                      .sequences = sequences};
}

absl::Status HeldEpoch::Capture(absl::Duration timeout) {
  MUSTER_ASSIGN_OR_RETURN(captured_, context_->Capture(timeout));
  absl::MutexLock lock(&mu_);
  buckets_ = captured_.buckets;
  block_tokens_ = captured_.block_tokens;
  fusion_ = context_->fusion();
  return absl::OkStatus();
}

absl::StatusOr<Takeover> HeldEpoch::Activate(const EpochOperation& operation) {
  const EpochContext::TakeoverOrder& order = operation.call().takeover;
  if (order.from != Epoch()) {
    MUSTER_ASSIGN_OR_RETURN(const Takeover takeover,
                            context_->TakeOver(order, operation.timeout()));
    options_.context.counters->NoteTakeover(takeover);
    return takeover;
  }
  MUSTER_RETURN_IF_ERROR(context_->Activate());
  BeginServing();
  return Takeover();
}

void HeldEpoch::BeginServing() {
  absl::MutexLock lock(&mu_);
  if (failed_ || pin_ == nullptr) return;
  if (const std::shared_ptr<Engine> engine = pin_->engine(); engine != nullptr) {
    serving_ = std::make_shared<const ServingEpoch>(ServingEpoch{.epoch = topology_.epoch,
                                                                 .model = pin_->model().spec,
                                                                 .captured = captured_,
                                                                 .shared_engine = engine});
  }
  active_ = was_active_ = true;
  options_.listener.on_activated(topology_.replica, topology_.epoch);
}

void HeldEpoch::OnTakenOver() {
  BeginServing();
  absl::MutexLock lock(&mu_);
  taken_over_ = true;
}

void HeldEpoch::OnPassedOn() {
  absl::MutexLock lock(&mu_);
  EndServing();
}

absl::Status HeldEpoch::Drain(absl::Duration timeout) {
  {
    absl::MutexLock lock(&mu_);
    EndServing();
  }
  return context_->Drain(timeout);
}

void HeldEpoch::GiveBack() {
  if (context_ == nullptr) return;
  {
    absl::MutexLock lock(&mu_);
    EndServing();
    last_ = StatusLocked();
    last_.ledger.clear();
    pin_ = nullptr;
  }
  unpinned_.WaitForNotification();
  context_ = nullptr;
}

}  // namespace muster
