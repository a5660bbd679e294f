#include "client/ctl/fleet_address.h"

#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/port_limits.h"
#include "base/status_macros.h"
#include "base/wire_status.h"
#include "client/ctl/coordinator_record.h"
#include "client/ctl/port_probe.h"

namespace muster::ctl {
namespace {

constexpr absl::Duration kProbeTimeout = absl::Milliseconds(300);

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// What went wrong is said by the command, once; gRPC's own lines are for those who ask for them.
void QuietGrpc() {
  if (Variable("GRPC_VERBOSITY").empty()) gpr_set_log_function([](gpr_log_func_args*) {});
}

std::shared_ptr<grpc::Channel> Dial(const std::string& address, const FleetTls& tls,
                                    const TlsPeer& peer) {
  QuietGrpc();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // A proxy of the environment is meant for the internet, not for a fleet.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(
      address, tls.on() ? tls.credentials->ForPeer(peer) : grpc::InsecureChannelCredentials(),
      arguments);
}

bool IsUnreached(const grpc::Status& status) {
  const bool unreached = status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                         status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
  return unreached && IsFromTransport(status);
}

// Of gRPC's own words: no connection was made, as opposed to one that was lost.
bool IsUnconnected(const grpc::Status& status) {
  return absl::StrContains(status.error_message(), "failed to connect");
}

// What the ends disagree about; nothing where that is not it.
std::optional<std::string> Disagreement(const grpc::Status& status, const std::string& daemon,
                                        const std::string& address, const FleetTls& tls) {
  const PortKind kind = ProbePort(address, kProbeTimeout);
  if (kind == PortKind::kEncrypted && !tls.on()) {
    return absl::StrCat(daemon, " at ", address,
                        " expects TLS: give --tls DIR (or MUSTER_TLS), a folder with tls.crt, "
                        "tls.key and ca.crt");
  }
  if (kind == PortKind::kPlaintext && tls.on()) {
    return absl::StrCat(daemon, " at ", address, " does not speak TLS: leave --tls ", tls.directory,
                        " (or MUSTER_TLS) out, or start its daemon with --tls");
  }
  if (kind != PortKind::kEncrypted || !IsUnconnected(status)) return std::nullopt;
  return absl::StrCat(daemon, " at ", address, " and the certificate in ", tls.directory,
                      " do not accept each other: both must be valid, and of one authority and "
                      "trust domain (musterctl certs show ",
                      tls.directory, ")");
}

// A refusal of what is asked, or of whom it is asked.
absl::Status Refusal(const grpc::Status& status, const FleetTls& tls) {
  absl::Status plain = FromGrpc(status);
  const bool of_caller =
      absl::IsPermissionDenied(plain) || plain.code() == absl::StatusCode::kUnauthenticated;
  if (!of_caller || !tls.on()) return plain;
  return absl::Status(plain.code(), absl::StrCat(plain.message(), " (--tls ", tls.directory,
                                                 " names the certificate that was shown)"));
}

}  // namespace

absl::StatusOr<FleetTls> FleetTls::Open(const std::string& directory) {
  if (directory.empty()) return FleetTls();
  MUSTER_ASSIGN_OR_RETURN(auto credentials, TlsCredentials::Open(directory));
  return FleetTls{directory, std::move(credentials)};
}

absl::StatusOr<CoordinatorAddress> FindCoordinator(const FleetFlags& flags) {
  CoordinatorAddress found;
  std::string tls = flags.tls.empty() ? Variable("MUSTER_TLS") : flags.tls;
  if (!flags.coordinator.empty()) {
    found.address = flags.coordinator;
  } else if (found.address = Variable("MUSTER_COORDINATOR"); !found.address.empty()) {
    found.origin = " (from MUSTER_COORDINATOR)";
  } else {
    MUSTER_ASSIGN_OR_RETURN(const CoordinatorRecord record, CoordinatorRecord::Open());
    const std::optional<RecordedFleet> fleet = record.Read();
    if (!fleet.has_value()) {
      return absl::NotFoundError(
          "no fleet is known here: start one with `musterctl up --model DIR`, or name its "
          "coordinator with --coordinator HOST:PORT");
    }
    found.address = fleet->address;
    found.origin = " (recorded by the last `musterctl up`)";
    if (tls.empty()) tls = fleet->tls;
  }
  MUSTER_ASSIGN_OR_RETURN(found.tls, FleetTls::Open(tls));
  return found;
}

std::shared_ptr<grpc::Channel> Connect(const CoordinatorAddress& coordinator) {
  return Dial(coordinator.address, coordinator.tls, {.role = TlsRole::kCoordinator});
}

std::shared_ptr<grpc::Channel> Connect(const WorkerAddress& worker) {
  return Dial(worker.address, worker.tls, {.role = TlsRole::kWorker, .id = worker.worker_id});
}

absl::Status ExplainFailure(const grpc::Status& status, const CoordinatorAddress& coordinator) {
  if (!IsUnreached(status)) return Refusal(status, coordinator.tls);
  const auto disagreement =
      Disagreement(status, "the coordinator", coordinator.address, coordinator.tls);
  return absl::UnavailableError(disagreement.value_or(absl::StrCat(
      "no coordinator answers at ", coordinator.address, coordinator.origin,
      ": start a fleet with `musterctl up --model DIR`, or name its coordinator with --coordinator "
      "HOST:PORT")));
}

absl::Status ExplainFailure(const grpc::Status& status, const WorkerAddress& worker) {
  if (!IsUnreached(status)) return Refusal(status, worker.tls);
  const auto disagreement = Disagreement(status, "the worker", worker.address, worker.tls);
  if (!disagreement.has_value()) return FromGrpc(status);
  return absl::UnavailableError(*disagreement);
}

}  // namespace muster::ctl
