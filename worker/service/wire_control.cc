#include "worker/service/wire_control.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/wire_status.h"
#include "base/wire_takeover.h"
#include "base/wire_topology.h"

namespace muster {
namespace {

constexpr size_t kMaxRequestId = 64;
constexpr uint32_t kMaxReplicas = 1024;
constexpr absl::string_view kWeights = "weights";

absl::Status Check(bool valid, absl::string_view field, uint64_t value, absl::string_view range) {
  if (valid) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("header.", field, " is ", value, "; it must be ", range),
                   {.reason = ErrorReason::kInvalidRequest});
}

}  // namespace

absl::StatusOr<EpochCall> FromWire(const v1::ControlHeader& wire) {
  const size_t id_bytes = wire.request_id().size();
  MUSTER_RETURN_IF_ERROR(
      Check(id_bytes > 0 && id_bytes <= kMaxRequestId, "request_id (bytes)", id_bytes, "1 to 64"));
  MUSTER_RETURN_IF_ERROR(Check(wire.term() > 0, "term", wire.term(), "at least 1"));
  MUSTER_RETURN_IF_ERROR(
      Check(wire.replica() < kMaxReplicas, "replica", wire.replica(), "0 to 1023"));
  MUSTER_RETURN_IF_ERROR(Check(wire.epoch() > 0, "epoch", wire.epoch(), "at least 1"));
  return EpochCall{.request_id = wire.request_id(),
                   .term = Term(wire.term()),
                   .replica = ReplicaIndex(static_cast<int>(wire.replica())),
                   .epoch = Epoch(wire.epoch())};
}

absl::StatusOr<EpochCall> FromWire(const v1::ActivateRequest& wire) {
  MUSTER_ASSIGN_OR_RETURN(EpochCall call, FromWire(wire.header()));
  call.takeover.from = Epoch(wire.from_epoch());
  call.takeover.agreement_digest = wire.agreement_digest();
  for (const v1::SequenceName& name : wire.drop()) {
    call.takeover.drop.push_back(
        {.client_id = name.client_id(), .sequence_id = name.sequence_id()});
  }
  return call;
}

absl::StatusOr<EpochCall> FromWire(const v1::ReleaseRequest& wire) {
  MUSTER_ASSIGN_OR_RETURN(EpochCall call, FromWire(wire.header()));
  if (wire.code() != 0) call.why = FailureOf(wire);
  return call;
}

void ToWire(const EpochOutcome& outcome, v1::LoadResponse* wire) {
  v1::LoadResult* result = wire->mutable_result();
  for (const LedgerEntry& entry : outcome.ledger) {
    if (entry.tag == kWeights) result->set_weight_bytes(entry.bytes);
  }
}

void ToWire(const EpochOutcome& outcome, v1::WarmupResponse* wire) {
  ToWire(outcome.ledger, wire->mutable_result()->mutable_ledger());
}

void ToWire(const EpochOutcome& outcome, v1::CaptureResponse* wire) {
  const EpochContext::Captured& captured = outcome.captured;
  v1::CaptureResult* result = wire->mutable_result();
  for (int bucket : captured.buckets) result->add_buckets(static_cast<uint32_t>(bucket));
  result->set_kv_blocks(static_cast<uint64_t>(captured.kv_blocks));
  result->set_block_tokens(static_cast<uint32_t>(captured.block_tokens));
  ToWire(outcome.ledger, result->mutable_ledger());
  result->set_agreement_digest(captured.agreement_digest);
}

void ToWire(const EpochOutcome& outcome, v1::ActivateResponse* wire) {
  ToWire(outcome.takeover, wire->mutable_result());
}

void ToWire(const EpochStatus& status, v1::EpochStatus* wire) {
  const EpochReport& report = status.report;
  wire->set_replica(static_cast<uint32_t>(report.replica.value()));
  wire->set_epoch(report.epoch.value());
  wire->set_rank(static_cast<uint32_t>(status.rank.value()));
  wire->set_state(ToWire(report.state));
  *wire->mutable_progress() = ToWire(report.progress);
  wire->set_step(report.step.value());
  ToWire(status.ledger, wire->mutable_ledger());
  wire->set_failure(std::string(status.failure.message()));
}

}  // namespace muster
