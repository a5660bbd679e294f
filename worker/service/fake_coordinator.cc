#include "worker/service/fake_coordinator.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdlib>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"

namespace muster {
namespace {

// Waits that would not end otherwise, in a test that fails.
constexpr absl::Duration kPatience = absl::Seconds(30);

template <typename Ready>
void AwaitOrAbort(absl::Mutex& mu, const Ready& ready, const char* what)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
  if (mu.AwaitWithTimeout(absl::Condition(&ready), kPatience)) return;
  std::cerr << "waited in vain for " << what << std::endl;
  std::abort();
}

}  // namespace

FakeRendezvous::~FakeRendezvous() { FailAll(absl::UnavailableError("the test ended")); }

grpc::ServerUnaryReactor* FakeRendezvous::AllGather(grpc::CallbackServerContext* context,
                                                    const v1::AllGatherRequest* request,
                                                    v1::AllGatherResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::MutexLock lock(&mu_);
  requests_.push_back(*request);
  if (request->has_failure()) {
    reactor->Finish(grpc::Status::OK);
  } else if (!failure_.ok()) {
    reactor->Finish(ToGrpc(failure_));
  } else {
    waiting_.push_back({reactor, response});
  }
  return reactor;
}

std::vector<v1::AllGatherRequest> FakeRendezvous::AwaitRequests(size_t count) {
  absl::MutexLock lock(&mu_);
  const auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return requests_.size() >= count; };
  AwaitOrAbort(mu_, ready, "requests");
  return requests_;
}

void FakeRendezvous::Complete() {
  absl::MutexLock lock(&mu_);
  std::vector<std::string> values(waiting_.size());
  for (const v1::AllGatherRequest& request : requests_) {
    values.at(request.group_rank()) = request.value();
  }
  for (const Call& call : waiting_) {
    for (const std::string& value : values) call.response->add_values(value);
    call.reactor->Finish(grpc::Status::OK);
  }
  waiting_.clear();
}

void FakeRendezvous::FailAll(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  failure_ = status;
  for (const Call& call : waiting_) call.reactor->Finish(ToGrpc(status));
  waiting_.clear();
}

grpc::Status FakeMembership::Enlist(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::EnlistResponse, v1::EnlistRequest>* stream) {
  v1::EnlistRequest request;
  if (!stream->Read(&request)) return grpc::Status::CANCELLED;
  {
    absl::MutexLock lock(&mu_);
    enlistments_.push_back(request.enlistment());
    if (!refusal_.ok()) return ToGrpc(refusal_);
    v1::EnlistResponse welcome;
    welcome.mutable_welcome()->set_term(term_);
    // Long enough, where the stream is to break, for the worker to hear of it before the next.
    const absl::Duration interval = held_ ? absl::Milliseconds(100) : interval_;
    *welcome.mutable_welcome()->mutable_heartbeat_interval() = ToWire(interval);
    stream->Write(welcome);
    if (held_) {
      const auto interrupted = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !held_; };
      AwaitOrAbort(mu_, interrupted, "the interruption");
      return ToGrpc(absl::UnavailableError("interrupted"));
    }
    stream_ = stream;
  }
  while (stream->Read(&request)) {
    absl::MutexLock lock(&mu_);
    heartbeat_ = request.heartbeat();
    for (const auto& expiry : heartbeat_.client_expiries()) expired_.push_back(expiry.client_id());
    ++heartbeats_;
  }
  absl::MutexLock lock(&mu_);
  stream_ = nullptr;
  ++ended_;
  return grpc::Status::OK;
}

void FakeMembership::Refuse(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  refusal_ = status;
}

void FakeMembership::SetInterval(absl::Duration interval) {
  absl::MutexLock lock(&mu_);
  interval_ = interval;
}

v1::Enlistment FakeMembership::AwaitEnlistment() {
  absl::MutexLock lock(&mu_);
  const auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !enlistments_.empty(); };
  AwaitOrAbort(mu_, ready, "an enlistment");
  return enlistments_.back();
}

v1::Heartbeat FakeMembership::AwaitHeartbeats(int count) {
  absl::MutexLock lock(&mu_);
  const auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return heartbeats_ >= count; };
  AwaitOrAbort(mu_, ready, "heartbeats");
  return heartbeat_;
}

std::vector<std::string> FakeMembership::AwaitExpiries(size_t count) {
  absl::MutexLock lock(&mu_);
  const auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return expired_.size() >= count; };
  AwaitOrAbort(mu_, ready, "expiries");
  return expired_;
}

void FakeMembership::HoldNextStream() {
  absl::MutexLock lock(&mu_);
  held_ = true;
}

void FakeMembership::Interrupt() {
  absl::MutexLock lock(&mu_);
  held_ = false;
}

void FakeMembership::Send(const v1::EnlistResponse& notice) {
  absl::MutexLock lock(&mu_);
  const auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return stream_ != nullptr; };
  AwaitOrAbort(mu_, ready, "a worker");
  stream_->Write(notice);
}

void FakeMembership::AwaitEnd() {
  absl::MutexLock lock(&mu_);
  const auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return ended_ > 0; };
  AwaitOrAbort(mu_, ready, "the end of a stream");
}

FakeServer::FakeServer(grpc::Service& service, int port) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(),
                           &port_);
  builder.RegisterService(&service);
  server_ = builder.BuildAndStart();
  if (server_ != nullptr && port_ != 0) return;
  std::cerr << "cannot listen on port " << port << std::endl;
  std::abort();
}

FakeServer::~FakeServer() {
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

std::string FakeServer::address() const { return absl::StrCat("127.0.0.1:", port_); }

}  // namespace muster
