#include "coordinator/service/rendezvous_service.h"

#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/status_macros.h"
#include "base/tls_caller.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"

namespace muster {
namespace {

constexpr uint32_t kMaxIndex = std::numeric_limits<int>::max();

absl::StatusOr<int> IndexFromWire(absl::string_view field, uint32_t value) {
  if (value <= kMaxIndex) return static_cast<int>(value);
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; it can be 0 to ", kMaxIndex));
}

// Of any of the three requests.
template <typename Request>
absl::StatusOr<MeetingPlace> PlaceFromWire(const grpc::CallbackServerContext& context,
                                           const Request& request) {
  const v1::RendezvousScope& scope = request.scope();
  MUSTER_ASSIGN_OR_RETURN(const int replica, IndexFromWire("scope.replica", scope.replica()));
  uint64_t group = 0;
  if (!ParseDigest(scope.group_id(), &group)) {
    return absl::InvalidArgumentError(absl::StrCat("scope.group_id has ", scope.group_id().size(),
                                                   " bytes; it must be 16 hexadecimal digits"));
  }
  const std::optional<TlsIdentity> caller = CallerOf(context);
  return MeetingPlace{.replica = ReplicaIndex(replica),
                      .epoch = Epoch(scope.epoch()),
                      .group = GroupId(group),
                      .key = request.key(),
                      .incarnation = Incarnation(request.incarnation()),
                      .worker_id = caller.has_value() ? caller->id : ""};
}

absl::StatusOr<AllGatherCall> CallFromWire(const grpc::CallbackServerContext& context,
                                           const v1::AllGatherRequest& request) {
  MUSTER_ASSIGN_OR_RETURN(MeetingPlace place, PlaceFromWire(context, request));
  MUSTER_ASSIGN_OR_RETURN(const int rank, IndexFromWire("group_rank", request.group_rank()));
  AllGatherCall call{.place = std::move(place),
                     .rank = GroupRank(rank),
                     .contribution = request.value(),
                     .timeout = FromWire(request.timeout())};
  if (request.has_failure()) {
    call.contribution = FailureOf(request.failure());
  } else if (!request.has_value()) {
    return absl::InvalidArgumentError("contribution is missing: a value or a failure");
  }
  return call;
}

}  // namespace

grpc::ServerUnaryReactor* RendezvousService::AllGather(grpc::CallbackServerContext* context,
                                                       const v1::AllGatherRequest* request,
                                                       v1::AllGatherResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<AllGatherCall> call = CallFromWire(*context, *request);
  if (!call.ok()) {
    reactor->Finish(ToGrpc(call.status()));
    return reactor;
  }
  board_.AllGather(*call, [reactor, response](const absl::StatusOr<GatheredValues>& values) {
    if (values.ok()) response->mutable_values()->Add((*values)->begin(), (*values)->end());
    reactor->Finish(ToGrpc(values.status()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* RendezvousService::Publish(grpc::CallbackServerContext* context,
                                                     const v1::PublishRequest* request,
                                                     v1::PublishResponse* /*response*/) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<MeetingPlace> place = PlaceFromWire(*context, *request);
  reactor->Finish(ToGrpc(place.ok() ? board_.Publish(*place, request->value()) : place.status()));
  return reactor;
}

grpc::ServerUnaryReactor* RendezvousService::Await(grpc::CallbackServerContext* context,
                                                   const v1::AwaitRequest* request,
                                                   v1::AwaitResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<MeetingPlace> place = PlaceFromWire(*context, *request);
  if (!place.ok()) {
    reactor->Finish(ToGrpc(place.status()));
    return reactor;
  }
  board_.Await(*place, FromWire(request->timeout()),
               [reactor, response](const absl::StatusOr<GatheredValues>& values) {
                 if (values.ok()) response->set_value((*values)->front());
                 reactor->Finish(ToGrpc(values.status()));
               });
  return reactor;
}

}  // namespace muster
