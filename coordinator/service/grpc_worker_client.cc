#include "coordinator/service/grpc_worker_client.h"

#include <grpcpp/support/status.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/logging.h"
#include "base/tls_credentials.h"
#include "base/wire_status.h"
#include "base/wire_takeover.h"
#include "base/wire_topology.h"
#include "coordinator/service/phase_stream.h"
#include "coordinator/service/worker_connection.h"
#include "proto/muster/v1/worker_control.grpc.pb.h"

namespace muster {
namespace {

using Control = v1::WorkerControl::StubInterface::async_interface;
template <typename Request, typename Response>
using UnaryMethod = void (Control::*)(grpc::ClientContext*, const Request*, Response*,
                                      std::function<void(grpc::Status)>);

// The leader answers by itself, and says what is left.
constexpr absl::Duration kDrainMargin = absl::Seconds(1);

template <typename Request, typename Response>
struct UnaryCall {
  std::unique_ptr<WorkerCall> call;
  Request request;
  Response response;
};

WorkerProcess ProcessOf(const RankTarget& target) {
  return {target.placement.address, target.placement.incarnation};
}

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

v1::AssignRequest AssignOf(const RankTarget& target, const Topology& topology,
                           const PhaseInputs& inputs) {
  v1::AssignRequest request;
  *request.mutable_topology() = ToWire(topology);
  request.set_rank(static_cast<uint32_t>(target.placement.rank.value()));
  if (inputs.predecessor.has_value()) *request.mutable_predecessor() = ToWire(*inputs.predecessor);
  for (const int rows : inputs.buckets) request.add_buckets(static_cast<uint32_t>(rows));
  request.set_reserve_bytes(inputs.reserve_bytes);
  return request;
}

v1::ActivateRequest ActivateOf(const PhaseInputs& inputs) {
  v1::ActivateRequest request;
  if (inputs.from_epoch == Epoch()) return request;
  request.set_from_epoch(inputs.from_epoch.value());
  request.set_agreement_digest(inputs.agreement_digest);
  *request.mutable_timeout() = ToWire(inputs.takeover_timeout);
  for (const SequenceName& name : inputs.drop) ToWire(name, request.add_drop());
  return request;
}

}  // namespace

GrpcWorkerClient::GrpcWorkerClient(std::shared_ptr<const TlsCredentials> tls)
    : tls_(std::move(tls)), id_prefix_(absl::Uniform<uint64_t>(absl::BitGen())) {}

GrpcWorkerClient::~GrpcWorkerClient() { Stop(); }

void GrpcWorkerClient::Stop() {
  calls_.CancelAllAndWait();
  std::map<WorkerProcess, std::shared_ptr<WorkerConnection>> connections;
  std::shared_ptr<WorkerConnection> kept;
  absl::MutexLock lock(&mu_);
  connections.swap(connections_);
  kept.swap(kept_);
}

void GrpcWorkerClient::RunPhase(FormingPhase phase, const RankTarget& target,
                                const Topology& topology, const PhaseInputs& inputs,
                                OnProgress on_progress, OnPhaseDone done) {
  const char* what = FormingPhaseName(phase);
  switch (phase) {
    case FormingPhase::kAssign: {
      const UnaryMethod<v1::AssignRequest, v1::AssignResponse> method = &Control::Assign;
      return CallUnary<v1::AssignResponse>(
          method, AssignOf(target, topology, inputs), what, target, inputs.deadline,
          [done = std::move(done)](const absl::Status& status, const v1::AssignResponse&) {
            status.ok() ? done(PhaseResult{}) : done(status);
          });
    }
    case FormingPhase::kLoad:
      return CallStream<v1::LoadResponse>(&Control::Load, v1::LoadRequest(), what, target,
                                          inputs.deadline, std::move(on_progress), std::move(done));
    case FormingPhase::kWarmup: {
      v1::WarmupRequest request;
      *request.mutable_timeout() = ToWire(inputs.wait_bound);
      return CallStream<v1::WarmupResponse>(&Control::Warmup, std::move(request), what, target,
                                            inputs.deadline, std::move(on_progress),
                                            std::move(done));
    }
    case FormingPhase::kCapture: {
      v1::CaptureRequest request;
      *request.mutable_timeout() = ToWire(inputs.wait_bound);
      return CallStream<v1::CaptureResponse>(&Control::Capture, std::move(request), what, target,
                                             inputs.deadline, std::move(on_progress),
                                             std::move(done));
    }
    case FormingPhase::kActivate:
      return CallStream<v1::ActivateResponse>(&Control::Activate, ActivateOf(inputs), what, target,
                                              inputs.deadline, std::move(on_progress),
                                              std::move(done));
  }
}

void GrpcWorkerClient::DescribeCache(const RankTarget& target, absl::Duration deadline,
                                     OnDescribed done) {
  const UnaryMethod<v1::DescribeCacheRequest, v1::DescribeCacheResponse> method =
      &Control::DescribeCache;
  CallUnary<v1::DescribeCacheResponse>(
      method, v1::DescribeCacheRequest(), "describe-cache", target, deadline,
      [done = std::move(done)](const absl::Status& status,
                               const v1::DescribeCacheResponse& response) {
        status.ok() ? done(FromWire(response)) : done(status);
      });
}

void GrpcWorkerClient::Drain(const RankTarget& target, absl::Duration timeout, OnDrained done) {
  const UnaryMethod<v1::DrainRequest, v1::DrainResponse> method = &Control::Drain;
  v1::DrainRequest request;
  *request.mutable_timeout() = ToWire(timeout);
  CallUnary<v1::DrainResponse>(
      method, std::move(request), "drain", target, timeout + kDrainMargin,
      [done = std::move(done)](const absl::Status& status, const v1::DrainResponse& response) {
        constexpr uint32_t kMost = 1 << 30;
        status.ok() ? done(static_cast<int>(std::min(response.sequences(), kMost))) : done(status);
      });
}

void GrpcWorkerClient::Release(const RankTarget& target, const absl::Status& why,
                               absl::Duration deadline, OnReleased done) {
  const UnaryMethod<v1::ReleaseRequest, v1::ReleaseResponse> method = &Control::Release;
  v1::ReleaseRequest request;
  if (!why.ok()) SetFailure(why, &request);
  CallUnary<v1::ReleaseResponse>(
      method, std::move(request), "release", target, deadline,
      [done = std::move(done)](const absl::Status& status, const v1::ReleaseResponse&) {
        done(status);
      });
}

void GrpcWorkerClient::Forget(const std::string& address, Incarnation incarnation) {
  const WorkerProcess gone{address, incarnation};
  calls_.Cancel(gone);
  absl::MutexLock lock(&mu_);
  connections_.erase(gone);
}

template <typename Response, typename Request, typename Method, typename Done>
void GrpcWorkerClient::CallUnary(Method method, Request request, const char* what,
                                 const RankTarget& target, absl::Duration deadline, Done done) {
  auto unary = std::make_shared<UnaryCall<Request, Response>>();
  unary->call = calls_.Begin(ProcessOf(target), deadline);
  if (unary->call == nullptr) return;
  unary->request = std::move(request);
  FillHeader(target, &unary->request);
  auto connection = Connect(target);
  (connection->control()->*method)(
      unary->call->context(), &unary->request, &unary->response,
      [unary, what, target, deadline, done = std::move(done)](const grpc::Status& status) {
        done(Explain(status, what, target, deadline), unary->response);
      });
  Keep(std::move(connection));
}

template <typename Response, typename Request, typename Method>
void GrpcWorkerClient::CallStream(Method method, Request request, const char* what,
                                  const RankTarget& target, absl::Duration deadline,
                                  OnProgress on_progress, OnPhaseDone done) {
  auto call = calls_.Begin(ProcessOf(target), deadline);
  if (call == nullptr) return;
  FillHeader(target, &request);
  auto connection = Connect(target);
  auto* stream = new PhaseStream<Request, Response>(
      std::move(call), std::move(request), std::move(on_progress),
      [what, target, deadline, done = std::move(done)](const grpc::Status& status,
                                                       absl::StatusOr<PhaseResult> result) {
        done(status.ok() ? std::move(result) : Explain(status, what, target, deadline));
      });
  stream->Start(connection->control(), method);
  Keep(std::move(connection));
}

template <typename Request>
void GrpcWorkerClient::FillHeader(const RankTarget& target, Request* request) {
  v1::ControlHeader* header = request->mutable_header();
  header->set_request_id(absl::StrFormat("%016x-%d", id_prefix_, ++last_id_));
  header->set_term(target.term.value());
  header->set_replica(static_cast<uint32_t>(target.replica.value()));
  header->set_epoch(target.epoch.value());
}

std::shared_ptr<WorkerConnection> GrpcWorkerClient::Connect(const RankTarget& target) {
  absl::MutexLock lock(&mu_);
  std::shared_ptr<WorkerConnection>& connection = connections_[ProcessOf(target)];
  if (connection == nullptr) {
    connection = std::make_shared<WorkerConnection>(target.placement.address,
                                                    target.placement.worker_id, tls_.get());
  }
  return connection;
}

void GrpcWorkerClient::Keep(std::shared_ptr<WorkerConnection> connection) {
  absl::MutexLock lock(&mu_);
  if (kept_ == nullptr) kept_ = std::move(connection);
}

}  // namespace muster
