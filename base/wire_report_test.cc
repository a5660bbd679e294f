#include "base/wire_report.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr uint64_t kLargest = std::numeric_limits<uint64_t>::max();

EpochReport ExampleReport() {
  return {.replica = ReplicaIndex(2),
          .epoch = Epoch(18),
          .state = WorkerState::kWarm,
          .progress = {.phase = "load", .done = 3, .total = 9, .unit = "bytes"},
          .step = StepNumber(77),
          .kv_blocks_used = 5,
          .kv_blocks_total = 6,
          .tokens = 400,
          .queued_requests = 3,
          .buckets = {32, 1}};
}

ExpiryReport ExampleExpiry() {
  return {.replica = ReplicaIndex(1023),
          .epoch = Epoch(kLargest),
          .client_id = "bench-7",
          .lease = absl::Minutes(10),
          .sequences = std::numeric_limits<int>::max(),
          .kv_blocks = kLargest};
}

// `value` as a message after `change`; reading it must be refused with `field` in the message.
template <typename Value, typename Change>
void ExpectRefused(const Value& value, const std::string& field, Change change) {
  auto wire = ToWire(value);
  change(wire);
  EXPECT_STATUS(FromWire(wire), kInvalid, field);
}

TEST(WireDeviceReport, GoesThereAndBack) {
  const DeviceReport device{.kind = "cuda",
                            .ordinal = DeviceOrdinal(7),
                            .name = "a GPU",
                            .total_bytes = kLargest,
                            .free_bytes = 1,
                            .threads = 64};
  ASSERT_OK_AND_ASSIGN(const DeviceReport read, FromWire(ToWire(device)));
  EXPECT_EQ(read, device);
}

TEST(WireDeviceReport, RefusesEveryFieldOutOfRange) {
  const std::string text(257, 'x');
  const DeviceReport device;
  ExpectRefused(device, "device.kind has 257", [&](auto& wire) { wire.set_kind(text); });
  ExpectRefused(device, "device.name has 257", [&](auto& wire) { wire.set_name(text); });
  ExpectRefused(device, "device.ordinal is 65536; it can be 0 to 65535",
                [](auto& wire) { wire.set_ordinal(65536); });
  ExpectRefused(device, "device.threads is 4294967295; it can be 0 to 65535",
                [](auto& wire) { wire.set_threads(~0u); });
}

TEST(WireEpochReport, GoesThereAndBack) {
  ASSERT_OK_AND_ASSIGN(const EpochReport read, FromWire(ToWire(ExampleReport())));
  EXPECT_EQ(read, ExampleReport());
}

TEST(WireEpochReport, RefusesEveryFieldOutOfRange) {
  const std::string text(257, 'x');
  ExpectRefused(ExampleReport(), "report.replica is 1024; it can be 0 to 1023",
                [](auto& wire) { wire.set_replica(1024); });
  ExpectRefused(ExampleReport(), "report.epoch is 0", [](auto& wire) { wire.set_epoch(0); });
  ExpectRefused(ExampleReport(), "state is 0; it can be 1 to 9",
                [](auto& wire) { wire.clear_state(); });
  ExpectRefused(ExampleReport(), "report.buckets is 0; it can be 1 to",
                [](auto& wire) { wire.add_buckets(0); });
  ExpectRefused(ExampleReport(), "report.buckets (entries) is 65; it can be 0 to 64",
                [](auto& wire) { wire.mutable_buckets()->Resize(65, 1); });
  ExpectRefused(ExampleReport(), "progress.phase has 257 bytes",
                [&](auto& wire) { wire.mutable_progress()->set_phase(text); });
  ExpectRefused(ExampleReport(), "progress.unit has 257 bytes",
                [&](auto& wire) { wire.mutable_progress()->set_unit(text); });
}

TEST(WireClientExpiry, GoesThereAndBack) {
  for (const std::string& id :
       {std::string("bench-7"), std::string("\0\n", 2), std::string(128, 'x')}) {
    ExpiryReport expiry = ExampleExpiry();
    expiry.client_id = id;
    ASSERT_OK_AND_ASSIGN(const ExpiryReport read, FromWire(ToWire(expiry)));
    EXPECT_EQ(read, expiry);
  }
}

TEST(WireClientExpiry, RefusesEveryFieldOutOfRange) {
  const std::string id(129, 'x');
  ExpectRefused(ExampleExpiry(), "expiry.replica is 1024; it can be 0 to 1023",
                [](auto& wire) { wire.set_replica(1024); });
  ExpectRefused(ExampleExpiry(), "expiry.epoch is 0", [](auto& wire) { wire.set_epoch(0); });
  ExpectRefused(ExampleExpiry(), "expiry.client_id (bytes) is 0; it can be 1 to 128",
                [](auto& wire) { wire.clear_client_id(); });
  ExpectRefused(ExampleExpiry(), "expiry.client_id (bytes) is 129; it can be 1 to 128",
                [&](auto& wire) { wire.set_client_id(id); });
  ExpectRefused(ExampleExpiry(), "expiry.sequences is 2147483648",
                [](auto& wire) { wire.set_sequences(1u << 31); });
  ExpectRefused(ExampleExpiry(), "expiry.lease: ", [](auto& wire) { wire.clear_lease(); });
  ExpectRefused(ExampleExpiry(), "expiry.lease: ", [](auto& wire) {
    wire.mutable_lease()->set_seconds(366 * 86400);
  });
}

TEST(WireWorkerState, EveryStateGoesThereAndBackAndNoOther) {
  for (int state = 1; state <= 9; ++state) {
    ASSERT_OK_AND_ASSIGN(const WorkerState read, FromWire(static_cast<v1::WorkerState>(state)));
    EXPECT_EQ(ToWire(read), state);
    EXPECT_EQ(v1::WorkerState_Name(ToWire(read)),
              absl::StrCat("WORKER_STATE_", WorkerStateName(read)));
  }
  for (const int state : {0, 10, -1, std::numeric_limits<int>::min()}) {
    EXPECT_STATUS(FromWire(static_cast<v1::WorkerState>(state)), kInvalid, "state is ") << state;
  }
}

using WireLedger = google::protobuf::RepeatedPtrField<v1::LedgerEntry>;

TEST(WireLedger, GoesThereAndBack) {
  const std::vector<LedgerEntry> entries = {{"weights", kLargest}, {"workspace/STAGE+CP", 0}};
  WireLedger wire;
  ToWire(entries, &wire);
  ASSERT_OK_AND_ASSIGN(const std::vector<LedgerEntry> read, FromWire(wire));
  EXPECT_EQ(read, entries);
}

TEST(WireLedger, RefusesMoreEntriesThanTheLimit) {
  WireLedger wire;
  ToWire(std::vector<LedgerEntry>(4096), &wire);
  EXPECT_OK(FromWire(wire));
  wire.Add();
  EXPECT_STATUS(FromWire(wire), kInvalid, "ledger (entries) is 4097; it can be 0 to 4096");
}

TEST(WireLedger, RefusesALongTag) {
  WireLedger wire;
  wire.Add()->set_tag(std::string(4097, 'x'));
  EXPECT_STATUS(FromWire(wire), kInvalid, "ledger.tag has 4097 bytes; it can have 4096");
}

}  // namespace
}  // namespace muster
