#include "base/wire_report.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/wire_check.h"
#include "base/wire_time.h"

namespace muster {
namespace {

constexpr size_t kMaxFailureBytes = 1024;
constexpr int kMaxLedgerEntries = 4096;
constexpr size_t kMaxClientId = 128;
constexpr uint64_t kMaxBuckets = 64;
constexpr uint64_t kMaxBucketRows = 1 << 20;
constexpr absl::Duration kLongestLease = absl::Hours(24 * 365);

// One line of ASCII that is not too long, whatever came.
std::string PlainText(absl::string_view text) {
  std::string plain(text.substr(0, kMaxFailureBytes));
  std::replace_if(
      plain.begin(), plain.end(), [](char c) { return !absl::ascii_isprint(c); }, '?');
  return plain;
}

}  // namespace

v1::DeviceReport ToWire(const DeviceReport& device) {
  v1::DeviceReport wire;
  wire.set_kind(device.kind);
  wire.set_ordinal(static_cast<uint32_t>(device.ordinal.value()));
  wire.set_name(device.name);
  wire.set_total_bytes(device.total_bytes);
  wire.set_free_bytes(device.free_bytes);
  wire.set_threads(static_cast<uint32_t>(device.threads));
  return wire;
}

v1::Progress ToWire(const Progress& progress) {
  v1::Progress wire;
  wire.set_phase(progress.phase);
  wire.set_done(progress.done);
  wire.set_total(progress.total);
  wire.set_unit(progress.unit);
  return wire;
}

v1::LedgerEntry ToWire(const LedgerEntry& entry) {
  v1::LedgerEntry wire;
  wire.set_tag(entry.tag);
  wire.set_bytes(entry.bytes);
  return wire;
}

v1::EpochReport ToWire(const EpochReport& report) {
  v1::EpochReport wire;
  wire.set_replica(static_cast<uint32_t>(report.replica.value()));
  wire.set_epoch(report.epoch.value());
  wire.set_state(ToWire(report.state));
  *wire.mutable_progress() = ToWire(report.progress);
  wire.set_step(report.step.value());
  wire.set_kv_blocks_used(report.kv_blocks_used);
  wire.set_kv_blocks_total(report.kv_blocks_total);
  wire.set_tokens(report.tokens);
  wire.set_queued_requests(static_cast<uint32_t>(report.queued_requests));
  wire.set_failure(PlainText(report.failure));
  for (const int bucket : report.buckets) wire.add_buckets(static_cast<uint32_t>(bucket));
  return wire;
}

v1::ClientExpiry ToWire(const ExpiryReport& expiry) {
  v1::ClientExpiry wire;
  wire.set_replica(static_cast<uint32_t>(expiry.replica.value()));
  wire.set_epoch(expiry.epoch.value());
  wire.set_client_id(expiry.client_id);
  *wire.mutable_lease() = ToWire(expiry.lease);
  wire.set_sequences(static_cast<uint32_t>(expiry.sequences));
  wire.set_kv_blocks(expiry.kv_blocks);
  return wire;
}

v1::WorkerState ToWire(WorkerState state) { return static_cast<v1::WorkerState>(state); }

void ToWire(const std::vector<LedgerEntry>& entries,
            google::protobuf::RepeatedPtrField<v1::LedgerEntry>* wire) {
  for (const LedgerEntry& entry : entries) *wire->Add() = ToWire(entry);
}

absl::StatusOr<DeviceReport> FromWire(const v1::DeviceReport& wire) {
  MUSTER_RETURN_IF_ERROR(CheckWireLength("device.kind", wire.kind()));
  MUSTER_RETURN_IF_ERROR(CheckWireLength("device.name", wire.name()));
  MUSTER_RETURN_IF_ERROR(CheckWireRange("device.ordinal", wire.ordinal(), 0, 65535));
  MUSTER_RETURN_IF_ERROR(CheckWireRange("device.threads", wire.threads(), 0, 65535));
  return DeviceReport{.kind = wire.kind(),
                      .ordinal = DeviceOrdinal(static_cast<int>(wire.ordinal())),
                      .name = wire.name(),
                      .total_bytes = wire.total_bytes(),
                      .free_bytes = wire.free_bytes(),
                      .threads = static_cast<int>(wire.threads())};
}

absl::StatusOr<Progress> FromWire(const v1::Progress& wire) {
  MUSTER_RETURN_IF_ERROR(CheckWireLength("progress.phase", wire.phase()));
  MUSTER_RETURN_IF_ERROR(CheckWireLength("progress.unit", wire.unit()));
  return Progress{
      .phase = wire.phase(), .done = wire.done(), .total = wire.total(), .unit = wire.unit()};
}

absl::StatusOr<EpochReport> FromWire(const v1::EpochReport& wire) {
  EpochReport report{.epoch = Epoch(wire.epoch()),
                     .step = StepNumber(wire.step()),
                     .kv_blocks_used = wire.kv_blocks_used(),
                     .kv_blocks_total = wire.kv_blocks_total(),
                     .failure = PlainText(wire.failure()),
                     .tokens = wire.tokens()};
  MUSTER_RETURN_IF_ERROR(CheckWireRange("report.replica", wire.replica(), 0, kMaxWireAxis - 1));
  MUSTER_RETURN_IF_ERROR(
      CheckWireRange("report.epoch", wire.epoch(), 1, std::numeric_limits<uint64_t>::max()));
  report.replica = ReplicaIndex(static_cast<int>(wire.replica()));
  MUSTER_RETURN_IF_ERROR(CheckWireRange("report.queued_requests", wire.queued_requests(), 0,
                                        std::numeric_limits<int>::max()));
  report.queued_requests = static_cast<int>(wire.queued_requests());
  MUSTER_RETURN_IF_ERROR(CheckWireRange(
      "report.buckets (entries)", static_cast<uint64_t>(wire.buckets_size()), 0, kMaxBuckets));
  for (const uint32_t bucket : wire.buckets()) {
    MUSTER_RETURN_IF_ERROR(CheckWireRange("report.buckets", bucket, 1, kMaxBucketRows));
    report.buckets.push_back(static_cast<int>(bucket));
  }
  MUSTER_ASSIGN_OR_RETURN(report.state, FromWire(wire.state()));
  MUSTER_ASSIGN_OR_RETURN(report.progress, FromWire(wire.progress()));
  return report;
}

absl::StatusOr<ExpiryReport> FromWire(const v1::ClientExpiry& wire) {
  MUSTER_RETURN_IF_ERROR(CheckWireRange("expiry.replica", wire.replica(), 0, kMaxWireAxis - 1));
  MUSTER_RETURN_IF_ERROR(
      CheckWireRange("expiry.epoch", wire.epoch(), 1, std::numeric_limits<uint64_t>::max()));
  MUSTER_RETURN_IF_ERROR(
      CheckWireRange("expiry.client_id (bytes)", wire.client_id().size(), 1, kMaxClientId));
  MUSTER_RETURN_IF_ERROR(
      CheckWireRange("expiry.sequences", wire.sequences(), 0, std::numeric_limits<int>::max()));
  const auto lease = TimeoutFromWire(wire.lease(), kLongestLease);
  if (!lease.ok()) return Annotate(lease.status(), "expiry.lease");
  return ExpiryReport{.replica = ReplicaIndex(static_cast<int>(wire.replica())),
                      .epoch = Epoch(wire.epoch()),
                      .client_id = wire.client_id(),
                      .lease = *lease,
                      .sequences = static_cast<int>(wire.sequences()),
                      .kv_blocks = wire.kv_blocks()};
}

absl::StatusOr<WorkerState> FromWire(v1::WorkerState wire) {
  MUSTER_RETURN_IF_ERROR(CheckWireRange("state", static_cast<uint64_t>(wire),
                                        v1::WORKER_STATE_ENLISTED, v1::WORKER_STATE_FAILED));
  return static_cast<WorkerState>(wire);
}

absl::StatusOr<std::vector<LedgerEntry>> FromWire(
    const google::protobuf::RepeatedPtrField<v1::LedgerEntry>& wire) {
  MUSTER_RETURN_IF_ERROR(
      CheckWireRange("ledger (entries)", static_cast<uint64_t>(wire.size()), 0, kMaxLedgerEntries));
  std::vector<LedgerEntry> entries;
  for (const v1::LedgerEntry& entry : wire) {
    MUSTER_RETURN_IF_ERROR(CheckWireLength("ledger.tag", entry.tag(), 4096));
    entries.push_back({.tag = entry.tag(), .bytes = entry.bytes()});
  }
  return entries;
}

}  // namespace muster
