#include "coordinator/service/worker_info.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/listen_address.h"
#include "base/status_macros.h"
#include "base/text.h"
#include "base/unix_socket.h"
#include "base/wire_topology.h"

namespace muster {
namespace {

constexpr int kMostReports = 64;
constexpr size_t kMaxTextBytes = 256;
// Terms that nobody reaches by counting would leave none for the next coordinator.
constexpr uint64_t kHighestTerm = uint64_t{1} << 62;

absl::Status CheckText(absl::string_view field, const std::string& text) {
  if (text.size() <= kMaxTextBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " has ", text.size(), " bytes; it can have ", kMaxTextBytes));
}

absl::Status CheckAddress(const std::string& text) {
  MUSTER_RETURN_IF_ERROR(CheckText("address", text));
  MUSTER_ASSIGN_OR_RETURN(const ListenAddress address, ParseListenAddress(text));
  if (address.port > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("address is '", text, "'; its port can't be 0"));
}

absl::Status CheckTerm(uint64_t term) {
  if (term <= kHighestTerm) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("term is ", term, "; it can be 0 to ", kHighestTerm));
}

template <typename Value, typename Wire>
absl::StatusOr<std::vector<Value>> AllFromWire(
    absl::string_view field, const google::protobuf::RepeatedPtrField<Wire>& wire) {
  if (wire.size() > kMostReports) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has ", wire.size(), " entries; it can have ", kMostReports));
  }
  std::vector<Value> values;
  for (const Wire& it : wire) {
    MUSTER_ASSIGN_OR_RETURN(Value checked, FromWire(it));
    values.push_back(std::move(checked));
  }
  return values;
}

}  // namespace

absl::StatusOr<WorkerInfo> WorkerInfoFromWire(const v1::Enlistment& wire) {
  MUSTER_RETURN_IF_ERROR(CheckWorkerId(wire.worker_id()));
  if (wire.incarnation() == 0) {
    return absl::InvalidArgumentError("incarnation is 0; it can be any other number");
  }
  MUSTER_RETURN_IF_ERROR(CheckAddress(wire.address()));
  MUSTER_RETURN_IF_ERROR(CheckLocalAddress(wire.local_address()));
  MUSTER_RETURN_IF_ERROR(CheckText("build", wire.build()));
  if (!wire.domain().empty() && !IsName(wire.domain())) {
    return absl::InvalidArgumentError(
        absl::StrCat("domain of ", wire.domain().size(),
                     " bytes; it can be 1 to 128 letters, digits, '.', '_', '-', or empty"));
  }
  WorkerInfo worker{.worker_id = wire.worker_id(),
                    .incarnation = Incarnation(wire.incarnation()),
                    .address = wire.address(),
                    .build = wire.build(),
                    .local_address = wire.local_address(),
                    .term = Term(wire.term()),
                    .domain = wire.domain()};
  MUSTER_RETURN_IF_ERROR(CheckTerm(wire.term()));
  MUSTER_ASSIGN_OR_RETURN(worker.device, FromWire(wire.device()));
  MUSTER_ASSIGN_OR_RETURN(worker.model, FromWire(wire.model()));
  MUSTER_ASSIGN_OR_RETURN(worker.epochs, ReportsFromWire(wire.epochs()));
  MUSTER_ASSIGN_OR_RETURN(worker.serving, AllFromWire<Topology>("serving", wire.serving()));
  return worker;
}

absl::StatusOr<std::vector<EpochReport>> ReportsFromWire(
    const google::protobuf::RepeatedPtrField<v1::EpochReport>& wire) {
  return AllFromWire<EpochReport>("epochs", wire);
}

absl::StatusOr<std::vector<ExpiryReport>> ExpiriesFromWire(
    const google::protobuf::RepeatedPtrField<v1::ClientExpiry>& wire) {
  return AllFromWire<ExpiryReport>("client_expiries", wire);
}

}  // namespace muster
