#include "coordinator/service/grpc_worker_client.h"

#include <grpcpp/client_context.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/logging.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"
#include "coordinator/service/phase_stream.h"
#include "coordinator/service/worker_connection.h"

namespace muster {
namespace {

using Control = v1::WorkerControl::StubInterface::async_interface;
template <typename Request, typename Response>
using UnaryMethod = void (Control::*)(grpc::ClientContext*, const Request*, Response*,
                                      std::function<void(grpc::Status)>);

template <typename Request, typename Response>
struct UnaryCall {
  grpc::ClientContext context;
  Request request;
  Response response;
};

// What the worker said stays; what gRPC says names addresses, and too little else.
absl::Status Explain(const grpc::Status& status, const char* what, const RankTarget& target,
                     absl::Duration deadline) {
  if (!IsFromTransport(status)) return FromGrpc(status);
  Logger(target.replica, target.epoch, target.placement.rank)
      .Debug(what, " ended in gRPC: ", status.error_message());
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return MakeError(absl::StatusCode::kDeadlineExceeded,
                       absl::StrCat("it did not answer within ", absl::FormatDuration(deadline)),
                       {.reason = ErrorReason::kRankMissing, .epoch = target.epoch, .phase = what});
    case grpc::StatusCode::UNIMPLEMENTED:
      return absl::UnimplementedError("its worker does not know the call; is it another version?");
    default:
      return MakeError(absl::StatusCode::kUnavailable, "its connection broke",
                       {.reason = ErrorReason::kRankLost, .epoch = target.epoch, .phase = what});
  }
}

}  // namespace

GrpcWorkerClient::GrpcWorkerClient() : id_prefix_(absl::Uniform<uint64_t>(absl::BitGen())) {}

GrpcWorkerClient::~GrpcWorkerClient() { Stop(); }

void GrpcWorkerClient::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  for (auto& [call, process] : calls_) call->TryCancel();
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return calls_.empty(); };
  mu_.Await(absl::Condition(&idle));
  connections_.clear();
}

void GrpcWorkerClient::RunPhase(FormingPhase phase, const RankTarget& target,
                                const Topology& topology, absl::Duration wait_bound,
                                absl::Duration deadline, OnProgress on_progress, OnPhaseDone done) {
  const char* what = FormingPhaseName(phase);
  const auto done_without_result = [&done] {
    return [done = std::move(done)](const absl::Status& status) {
      status.ok() ? done(PhaseResult{}) : done(status);
    };
  };
  switch (phase) {
    case FormingPhase::kAssign: {
      v1::AssignRequest request;
      *request.mutable_topology() = ToWire(topology);
      request.set_rank(static_cast<uint32_t>(target.placement.rank.value()));
      const UnaryMethod<v1::AssignRequest, v1::AssignResponse> method = &Control::Assign;
      return CallUnary<v1::AssignResponse>(method, std::move(request), what, target, deadline,
                                           done_without_result());
    }
    case FormingPhase::kLoad:
      return CallStream<v1::LoadResponse>(&Control::Load, v1::LoadRequest(), what, target, deadline,
                                          std::move(on_progress), std::move(done));
    case FormingPhase::kWarmup: {
      v1::WarmupRequest request;
      *request.mutable_timeout() = ToWire(wait_bound);
      return CallStream<v1::WarmupResponse>(&Control::Warmup, std::move(request), what, target,
                                            deadline, std::move(on_progress), std::move(done));
    }
    case FormingPhase::kCapture: {
      v1::CaptureRequest request;
      *request.mutable_timeout() = ToWire(wait_bound);
      return CallStream<v1::CaptureResponse>(&Control::Capture, std::move(request), what, target,
                                             deadline, std::move(on_progress), std::move(done));
    }
    case FormingPhase::kActivate: {
      const UnaryMethod<v1::ActivateRequest, v1::ActivateResponse> method = &Control::Activate;
      return CallUnary<v1::ActivateResponse>(method, v1::ActivateRequest(), what, target, deadline,
                                             done_without_result());
    }
  }
}

void GrpcWorkerClient::Release(const RankTarget& target, absl::Duration deadline, OnReleased done) {
  const UnaryMethod<v1::ReleaseRequest, v1::ReleaseResponse> method = &Control::Release;
  CallUnary<v1::ReleaseResponse>(method, v1::ReleaseRequest(), "release", target, deadline,
                                 std::move(done));
}

void GrpcWorkerClient::Forget(const std::string& address, Incarnation incarnation) {
  const ProcessKey gone{address, incarnation};
  absl::MutexLock lock(&mu_);
  connections_.erase(gone);
  for (auto& [call, process] : calls_) {
    if (process == gone) call->TryCancel();
  }
}

template <typename Response, typename Request, typename Method>
void GrpcWorkerClient::CallUnary(Method method, Request request, const char* what,
                                 const RankTarget& target, absl::Duration deadline,
                                 OnReleased done) {
  auto call = std::make_shared<UnaryCall<Request, Response>>();
  call->request = std::move(request);
  FillHeader(target, &call->request);
  call->context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
  const auto connection = Begin(target, &call->context);
  if (connection == nullptr) return;
  (connection->control()->*method)(
      &call->context, &call->request, &call->response,
      [this, call, what, target, deadline, done = std::move(done)](const grpc::Status& status) {
        done(Explain(status, what, target, deadline));
        End(&call->context);
      });
}

template <typename Response, typename Request, typename Method>
void GrpcWorkerClient::CallStream(Method method, Request request, const char* what,
                                  const RankTarget& target, absl::Duration deadline,
                                  OnProgress on_progress, OnPhaseDone done) {
  FillHeader(target, &request);
  auto owned = std::make_unique<grpc::ClientContext>();
  grpc::ClientContext* const context = owned.get();
  context->set_deadline(absl::ToChronoTime(absl::Now() + deadline));
  const auto connection = Begin(target, context);
  if (connection == nullptr) return;
  auto* stream = new PhaseStream<Request, Response>(
      std::move(owned), std::move(request), std::move(on_progress),
      [this, context, what, target, deadline, done = std::move(done)](
          const grpc::Status& status, absl::StatusOr<PhaseResult> result) {
        done(status.ok() ? std::move(result) : Explain(status, what, target, deadline));
        End(context);
      });
  stream->Start(connection->control(), method);
}

template <typename Request>
void GrpcWorkerClient::FillHeader(const RankTarget& target, Request* request) {
  v1::ControlHeader* header = request->mutable_header();
  header->set_request_id(absl::StrFormat("%016x-%d", id_prefix_, ++last_id_));
  header->set_term(target.term.value());
  header->set_replica(static_cast<uint32_t>(target.replica.value()));
  header->set_epoch(target.epoch.value());
}

std::shared_ptr<WorkerConnection> GrpcWorkerClient::Begin(const RankTarget& target,
                                                          grpc::ClientContext* call) {
  const ProcessKey process{target.placement.address, target.placement.incarnation};
  absl::MutexLock lock(&mu_);
  if (stopped_) return nullptr;
  std::shared_ptr<WorkerConnection>& connection = connections_[process];
  if (connection == nullptr) {
    connection = std::make_shared<WorkerConnection>(target.placement.address);
  }
  calls_.emplace(call, process);
  return connection;
}

void GrpcWorkerClient::End(grpc::ClientContext* call) {
  absl::MutexLock lock(&mu_);
  calls_.erase(call);
}

}  // namespace muster
