#include "worker/service/grpc_rendezvous.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/digest.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/wire_status.h"
#include "base/wire_time.h"
#include "base/wire_topology.h"
#include "proto/muster/v1/rendezvous.grpc.pb.h"

namespace muster {
namespace {

// What an answer may take beyond the timeout that the coordinator enforces.
constexpr absl::Duration kSlack = absl::Seconds(3);
constexpr absl::Duration kFailTimeout = absl::Seconds(1);
constexpr char kFailureKey[] = "failure";

v1::AllGatherRequest MakeRequest(const RendezvousCaller& caller, const Group& group,
                                 absl::string_view key, absl::Duration timeout) {
  v1::AllGatherRequest request;
  request.mutable_scope()->set_replica(static_cast<uint32_t>(caller.replica.value()));
  request.mutable_scope()->set_epoch(caller.epoch.value());
  request.mutable_scope()->set_group_id(DigestString(group.id().value()));
  request.set_key(std::string(key));
  request.set_group_rank(static_cast<uint32_t>(group.rank().value()));
  *request.mutable_timeout() = ToWire(timeout);
  request.set_incarnation(caller.incarnation.value());
  return request;
}

// The coordinator's own words stay; gRPC's say too little.
absl::Status Explain(const grpc::Status& status, const Group& group, absl::string_view key) {
  if (!IsFromTransport(status)) return FromGrpc(status);
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrCat("the coordinator did not answer all-gather '", key, "' of ",
                                   group.DebugString(), ": ", status.error_message()));
}

}  // namespace

GrpcRendezvous::GrpcRendezvous(std::shared_ptr<grpc::Channel> coordinator,
                               const RendezvousCaller& caller, RendezvousCounters& counters)
    : coordinator_(std::move(coordinator)), caller_(caller), counters_(counters) {}

GrpcRendezvous::~GrpcRendezvous() = default;

absl::StatusOr<std::vector<std::string>> GrpcRendezvous::AllGather(const Group& group,
                                                                   absl::string_view key,
                                                                   absl::string_view value,
                                                                   absl::Duration timeout) {
  const auto begun = std::chrono::steady_clock::now();
  auto gathered = Gather(group, key, value, timeout);
  counters_.waits.Observe(absl::FromChrono(std::chrono::steady_clock::now() - begun));
  if (!gathered.ok()) counters_.failures.Add();
  return gathered;
}

absl::StatusOr<std::vector<std::string>> GrpcRendezvous::Gather(const Group& group,
                                                                absl::string_view key,
                                                                absl::string_view value,
                                                                absl::Duration timeout) {
  v1::AllGatherRequest request = MakeRequest(caller_, group, key, timeout);
  request.set_value(std::string(value));
  v1::AllGatherResponse response;
  grpc::ClientContext context;
  context.set_deadline(DeadlineAfter(timeout + kSlack));
  MUSTER_RETURN_IF_ERROR(Begin(&context));
  const grpc::Status status =
      v1::Rendezvous::NewStub(coordinator_)->AllGather(&context, request, &response);
  const absl::Status cancelled = End(&context);
  if (!status.ok()) return cancelled.ok() ? Explain(status, group, key) : cancelled;
  if (response.values_size() != group.size()) {
    return absl::InternalError(absl::StrCat("all-gather '", key, "' of ", group.DebugString(),
                                            " gave ", response.values_size(), " values"));
  }
  return std::vector<std::string>(std::make_move_iterator(response.mutable_values()->begin()),
                                  std::make_move_iterator(response.mutable_values()->end()));
}

void GrpcRendezvous::Fail(const Group& group, const absl::Status& reason) {
  v1::AllGatherRequest request = MakeRequest(caller_, group, kFailureKey, kFailTimeout);
  SetFailure(reason, request.mutable_failure());
  v1::AllGatherResponse response;
  grpc::ClientContext context;
  context.set_deadline(DeadlineAfter(kFailTimeout));
  const grpc::Status status =
      v1::Rendezvous::NewStub(coordinator_)->AllGather(&context, request, &response);
  // The coordinator may well answer with the failure itself.
  if (IsFromTransport(status)) {
    Logger(caller_.replica, caller_.epoch, group.ToGlobal(group.rank()))
        .Warning("cannot tell the coordinator of a failure: ", status.error_message());
  }
}

void GrpcRendezvous::Cancel(const absl::Status& reason) {
  absl::MutexLock lock(&mu_);
  if (!cancelled_.ok()) return;
  cancelled_ = reason.ok() ? absl::CancelledError("the epoch was given up") : reason;
  for (grpc::ClientContext* call : calls_) call->TryCancel();
}

absl::Status GrpcRendezvous::Begin(grpc::ClientContext* call) {
  absl::MutexLock lock(&mu_);
  if (cancelled_.ok()) calls_.insert(call);
  return cancelled_;
}

absl::Status GrpcRendezvous::End(grpc::ClientContext* call) {
  absl::MutexLock lock(&mu_);
  calls_.erase(call);
  return cancelled_;
}

}  // namespace muster
