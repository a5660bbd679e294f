#ifndef MUSTER_COORDINATOR_SERVICE_MEMBERSHIP_SERVICE_H_
#define MUSTER_COORDINATOR_SERVICE_MEMBERSHIP_SERVICE_H_

#include <functional>

#include "absl/time/time.h"
#include "base/ids.h"
#include "coordinator/membership.h"
#include "proto/muster/v1/membership.grpc.pb.h"

namespace muster {

// muster.v1.Membership: every Enlist stream is one lease of the registry. Thread-safe.
class MembershipService : public v1::Membership::CallbackService {
 public:
  struct Options {
    std::function<Term()> term;         // the coordinator's, as it is then
    absl::Duration heartbeat_interval;  // what workers are asked for
  };
  // `membership` outlives this and every stream.
  MembershipService(const Options& options, Membership& membership)
      : options_(options), membership_(membership) {}

  // INVALID_ARGUMENT names the field, PERMISSION_DENIED the worker whose certificate the caller
  // has; otherwise ends with the reason for which the lease ended.
  grpc::ServerBidiReactor<v1::EnlistRequest, v1::EnlistResponse>* Enlist(
      grpc::CallbackServerContext* context) override;

 private:
  const Options options_;
  Membership& membership_;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_MEMBERSHIP_SERVICE_H_
