#include "coordinator/service/coordinator_server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "absl/strings/match.h"
#include "base/logging.h"
#include "base/port_limits.h"
#include "base/wire_time.h"

namespace muster {
namespace {

// What goes wrong in gRPC comes back to its callers, who say it in better words; what it asserts in
// vain ends the process.
void LogOfGrpc(gpr_log_func_args* args) {
  const bool last_words = absl::StartsWith(args->message, "assertion failed");
  LogLine(last_words ? LogLevel::kError : LogLevel::kDebug, {.source = "grpc"}, args->message);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(
    const Options& options, Coordinator& coordinator) {
  gpr_set_log_function(LogOfGrpc);
  std::unique_ptr<CoordinatorServer> server(new CoordinatorServer(options, coordinator));
  if (server->server_ == nullptr) return ExplainListenFailure(options.listen);
  return server;
}

CoordinatorServer::CoordinatorServer(const Options& options, Coordinator& coordinator)
    : coordinator_(coordinator),
      address_(options.listen),
      membership_({.term = [&coordinator] { return coordinator.term(); },
                   .heartbeat_interval = options.heartbeat_interval},
                  coordinator.membership()),
      rendezvous_(coordinator.rendezvous()),
      fleet_(coordinator.fleet()) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetPortLimits(builder);
  builder.AddListeningPort(options.listen.ToString(), ServerCredentialsOf(options.tls.get()),
                           &address_.port);
  builder.RegisterService(&membership_);
  builder.RegisterService(&rendezvous_);
  builder.RegisterService(&fleet_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) return;
  for (const char* service : {"muster.v1.Membership", "muster.v1.Rendezvous", "muster.v1.Fleet"}) {
    server_->GetHealthCheckService()->SetServingStatus(service, true);
  }
}

CoordinatorServer::~CoordinatorServer() { Shutdown(absl::ZeroDuration()); }

void CoordinatorServer::Shutdown(absl::Duration grace) {
  if (server_ == nullptr) return;
  server_->GetHealthCheckService()->Shutdown();
  coordinator_.Close();
  fleet_.EndStreams();
  server_->Shutdown(DeadlineAfter(grace));
  server_->Wait();
  server_.reset();
}

}  // namespace muster
