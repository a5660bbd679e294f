#include "coordinator/service/lease_stream.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "base/wire_status.h"
#include "base/wire_time.h"
#include "base/wire_topology.h"
#include "coordinator/service/lease_writer.h"
#include "coordinator/service/worker_info.h"

namespace muster {
namespace {

// No worker takes longer to leave.
constexpr absl::Duration kLongestDrain = absl::Hours(1);

}  // namespace

LeaseStream::LeaseStream(Membership& membership, std::function<Term()> term, v1::Welcome welcome,
                         std::optional<TlsIdentity> caller)
    : membership_(membership),
      term_(std::move(term)),
      welcome_(std::move(welcome)),
      caller_(std::move(caller)),
      writer_(std::make_shared<LeaseWriter>(this)) {
  StartRead(&request_);
}

LeaseStream::~LeaseStream() = default;

void LeaseStream::OnReadDone(bool ok) {
  if (!ok) return End(absl::OkStatus(), "its connection broke");
  if (absl::Status status = OnMessage(); !status.ok()) {
    return End(status, "it sent a malformed message");
  }
  StartRead(&request_);
}

void LeaseStream::OnWriteDone(bool ok) { writer_->OnWriteDone(ok); }

absl::Status LeaseStream::OnMessage() {
  if (!lease_.has_value()) {
    if (request_.has_enlistment()) return OnEnlistment(request_.enlistment());
    return absl::InvalidArgumentError("the first message of a lease must be an enlistment");
  }
  if (request_.has_heartbeat()) return OnHeartbeat(request_.heartbeat());
  return absl::InvalidArgumentError("after the enlistment, every message must be a heartbeat");
}

absl::Status LeaseStream::OnEnlistment(const v1::Enlistment& wire) {
  MUSTER_ASSIGN_OR_RETURN(const WorkerInfo worker, WorkerInfoFromWire(wire));
  MUSTER_RETURN_IF_ERROR(CheckIsWorker(caller_, worker.worker_id));
  MUSTER_ASSIGN_OR_RETURN(lease_, membership_.Enlist(worker, writer_));
  v1::Welcome welcome = welcome_;
  welcome.set_term(term_().value());
  writer_->Welcome(welcome);
  return absl::OkStatus();
}

absl::Status LeaseStream::OnHeartbeat(const v1::Heartbeat& wire) {
  MUSTER_ASSIGN_OR_RETURN(std::vector<EpochReport> reports, ReportsFromWire(wire.epochs()));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<ExpiryReport> expiries,
                          ExpiriesFromWire(wire.client_expiries()));
  membership_.Heartbeat(*lease_, wire.progress(), std::move(reports));
  if (!expiries.empty()) membership_.ReportExpiries(*lease_, expiries);
  if (!wire.has_leaving()) return absl::OkStatus();
  const absl::Duration time_left = FromWire(wire.leaving().time_left());
  membership_.ReportLeaving(*lease_, std::clamp(time_left, absl::ZeroDuration(), kLongestDrain));
  return absl::OkStatus();
}

// The call ends first: the registry would end it with a reason of its own.
void LeaseStream::End(const absl::Status& status, absl::string_view why) {
  writer_->End(status);
  if (lease_.has_value()) membership_.EndLease(*lease_, why);
}

}  // namespace muster
