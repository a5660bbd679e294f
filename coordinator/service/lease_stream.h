#ifndef MUSTER_COORDINATOR_SERVICE_LEASE_STREAM_H_
#define MUSTER_COORDINATOR_SERVICE_LEASE_STREAM_H_

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/ids.h"
#include "base/tls_identity.h"
#include "coordinator/membership.h"
#include "proto/muster/v1/membership.grpc.pb.h"

namespace muster {

class LeaseWriter;

// One Enlist call: reads the enlistment, then heartbeats, and writes what the registry tells the
// worker. Deletes itself when the call is over.
class LeaseStream : public grpc::ServerBidiReactor<v1::EnlistRequest, v1::EnlistResponse> {
 public:
  // `membership` outlives the call. The welcome gets the `term` that there is after the enlistment.
  // A `caller` that is known can enlist as no other worker.
  LeaseStream(Membership& membership, std::function<Term()> term, v1::Welcome welcome,
              std::optional<TlsIdentity> caller);
  ~LeaseStream() override;

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

  // What is wrong with the message ends the call.
  absl::Status OnMessage();
  absl::Status OnEnlistment(const v1::Enlistment& wire);
  absl::Status OnHeartbeat(const v1::Heartbeat& wire);
  void End(const absl::Status& status, absl::string_view why);

  Membership& membership_;
  const std::function<Term()> term_;
  const v1::Welcome welcome_;
  const std::optional<TlsIdentity> caller_;
  const std::shared_ptr<LeaseWriter> writer_;  // the registry holds it too

  // By one callback at a time.
  v1::EnlistRequest request_;
  std::optional<LeaseId> lease_;  // once enlisted
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_LEASE_STREAM_H_
