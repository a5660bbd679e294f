#include "worker/service/enlist_stream.h"

#include <grpcpp/channel.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/wire_status.h"
#include "base/wire_time.h"
#include "base/wire_topology.h"
#include "proto/muster/v1/membership.grpc.pb.h"

namespace muster {
namespace {

constexpr absl::Duration kWelcomeTimeout = absl::Seconds(5);
constexpr absl::Duration kShortestInterval = absl::Milliseconds(1);
constexpr absl::Duration kLongestInterval = absl::Minutes(1);

v1::EnlistRequest MakeEnlistment(const WorkerProfile& profile,
                                 const MembershipCallbacks& callbacks) {
  v1::EnlistRequest request;
  v1::Enlistment* enlistment = request.mutable_enlistment();
  enlistment->set_worker_id(profile.worker_id);
  enlistment->set_incarnation(profile.incarnation.value());
  enlistment->set_address(profile.address);
  *enlistment->mutable_device() = ToWire(profile.device);
  *enlistment->mutable_model() = ToWire(profile.model);
  enlistment->set_build(profile.build);
  enlistment->set_local_address(profile.local_address);
  enlistment->set_domain(profile.domain);
  for (const EpochReport& report : callbacks.history()) *enlistment->add_epochs() = ToWire(report);
  for (const Topology& topology : callbacks.serving())
    *enlistment->add_serving() = ToWire(topology);
  enlistment->set_term(callbacks.term().value());
  return request;
}

}  // namespace

EnlistStream::EnlistStream(const std::shared_ptr<grpc::Channel>& coordinator,
                           const WorkerProfile& profile, const MembershipCallbacks& callbacks,
                           std::vector<ExpiryReport>& untold)
    : coordinator_(coordinator), profile_(profile), callbacks_(callbacks), untold_(untold) {}

EnlistStream::~EnlistStream() = default;

absl::Status EnlistStream::Run() {
  stream_ = v1::Membership::NewStub(coordinator_)->PrepareAsyncEnlist(&context_, &queue_);
  deadline_ = Clock::Real().Now() + kWelcomeTimeout;
  stream_->StartCall(TagOf(Event::kStarted));
  pending_ = 1;
  while (Expects()) {
    void* tag = nullptr;
    bool ok = false;
    switch (queue_.AsyncNext(&tag, &ok, DeadlineAfter(deadline_ - Clock::Real().Now()))) {
      case grpc::CompletionQueue::GOT_EVENT:
        OnEvent(static_cast<Event>(reinterpret_cast<intptr_t>(tag)), ok);
        break;
      case grpc::CompletionQueue::TIMEOUT:
        break;
      case grpc::CompletionQueue::SHUTDOWN:
        return absl::InternalError("the completion queue was shut down");
    }
    if (Clock::Real().Now() >= deadline_) OnDeadline();
  }
  return EndStatus();
}

bool EnlistStream::Expects() {
  absl::MutexLock lock(&wake_mu_);
  over_ = pending_ == 0 && !waking_;
  return !over_;
}

void EnlistStream::Wake() {
  absl::MutexLock lock(&wake_mu_);
  if (over_ || std::exchange(waking_, true)) return;
  alarm_.Set(&queue_, std::chrono::system_clock::now(), TagOf(Event::kWoken));
}

void EnlistStream::OnEvent(Event event, bool ok) {
  if (event != Event::kWoken) --pending_;
  switch (event) {
    case Event::kStarted:
      if (!ok) return Finish();
      Write(MakeEnlistment(profile_, callbacks_));
      return Read();
    case Event::kRead:
      if (!ok) return Finish();
      OnMessage();
      return Read();
    case Event::kWritten:
      // A stream that takes no more writes soon fails the read that is always under way.
      writing_ = !ok;
      return SendHeartbeat();
    case Event::kFinished:
      return;
    case Event::kWoken: {
      if (welcomed()) deadline_ = Clock::Real().Now();
      absl::MutexLock lock(&wake_mu_);
      waking_ = false;
      return;
    }
  }
}

void EnlistStream::OnDeadline() {
  if (welcomed()) {
    deadline_ = std::max(deadline_ + interval_, Clock::Real().Now());
    due_ = true;
    return SendHeartbeat();
  }
  welcome_missed_ = true;
  deadline_ = absl::InfiniteFuture();
  context_.TryCancel();
}

void EnlistStream::OnMessage() {
  if (response_.has_welcome()) {
    interval_ = std::clamp(FromWire(response_.welcome().heartbeat_interval()), kShortestInterval,
                           kLongestInterval);
    deadline_ = Clock::Real().Now();
    callbacks_.on_welcome(Term(response_.welcome().term()));
  } else if (response_.has_epoch_aborted()) {
    const v1::EpochAborted& notice = response_.epoch_aborted();
    callbacks_.on_epoch_aborted(ReplicaIndex(static_cast<int>(notice.replica())),
                                Epoch(notice.epoch()), FailureOf(notice));
  } else if (response_.has_may_leave()) {
    callbacks_.on_may_leave(response_.may_leave().message());
  }
}

void EnlistStream::SendHeartbeat() {
  if (!due_ || writing_ || finishing_) return;
  due_ = false;
  v1::EnlistRequest request;
  v1::Heartbeat* heartbeat = request.mutable_heartbeat();
  heartbeat->set_progress(callbacks_.progress());
  for (const EpochReport& report : callbacks_.reports()) {
    *heartbeat->add_epochs() = ToWire(report);
  }
  // A write into a stream that has just ended can seem to succeed; not so one before a whole
  // interval in which the stream lived on.
  if (request_.has_heartbeat()) untold_.clear();
  if (untold_.empty()) untold_ = callbacks_.take_expiries();
  for (const ExpiryReport& expiry : untold_) {
    *heartbeat->add_client_expiries() = ToWire(expiry);
  }
  if (const auto time_left = callbacks_.leaving(); time_left.has_value()) {
    *heartbeat->mutable_leaving()->mutable_time_left() = ToWire(*time_left);
  }
  Write(std::move(request));
}

void EnlistStream::Write(v1::EnlistRequest request) {
  request_ = std::move(request);
  stream_->Write(request_, TagOf(Event::kWritten));
  writing_ = true;
  ++pending_;
}

void EnlistStream::Read() {
  stream_->Read(&response_, TagOf(Event::kRead));
  ++pending_;
}

void EnlistStream::Finish() {
  finishing_ = true;
  stream_->Finish(&status_, TagOf(Event::kFinished));
  ++pending_;
}

absl::Status EnlistStream::EndStatus() const {
  if (welcome_missed_) {
    return absl::DeadlineExceededError(absl::StrCat("the coordinator did not answer within ",
                                                    absl::FormatDuration(kWelcomeTimeout)));
  }
  if (status_.ok()) return absl::UnavailableError("the coordinator ended the stream");
  // A port of mutual TLS answers without details who may not call.
  const bool forbidden = status_.error_code() == grpc::StatusCode::PERMISSION_DENIED ||
                         status_.error_code() == grpc::StatusCode::UNAUTHENTICATED;
  if (forbidden || !IsFromTransport(status_)) return FromGrpc(status_);
  return absl::Status(static_cast<absl::StatusCode>(status_.error_code()),
                      absl::StrCat("the coordinator cannot be reached: ", status_.error_message()));
}

}  // namespace muster
