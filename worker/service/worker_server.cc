#include "worker/service/worker_server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/port_limits.h"
#include "base/status_macros.h"
#include "base/tls_credentials.h"
#include "base/unix_socket.h"
#include "base/wire_time.h"

namespace muster {
namespace {

// What goes wrong in gRPC comes back to its callers, who say it in better words.
void LogOfGrpc(gpr_log_func_args* args) {
  LogLine(LogLevel::kDebug, {.source = "grpc"}, args->message);
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerServer>> WorkerServer::Start(
    const ListenAddress& listen, std::vector<std::shared_ptr<grpc::Service>> services,
    const std::string& unix_socket, const TlsCredentials* tls) {
  if (!unix_socket.empty()) MUSTER_RETURN_IF_ERROR(PrepareUnixSocket(unix_socket));
  gpr_set_log_function(LogOfGrpc);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetPortLimits(builder);
  ListenAddress address{.host = listen.host};
  builder.AddListeningPort(listen.ToString(), ServerCredentialsOf(tls), &address.port);
  if (!unix_socket.empty()) {
    builder.AddListeningPort(UnixAddress(unix_socket), grpc::InsecureServerCredentials());
  }
  for (const auto& service : services) builder.RegisterService(service.get());
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (address.port == 0) return ExplainListenFailure(listen);
  if (server == nullptr) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", unix_socket));
  }
  return absl::WrapUnique(
      new WorkerServer(std::move(address), std::move(services), std::move(server)));
}

WorkerServer::WorkerServer(ListenAddress address,
                           std::vector<std::shared_ptr<grpc::Service>> services,
                           std::unique_ptr<grpc::Server> server)
    : address_(std::move(address)), services_(std::move(services)), server_(std::move(server)) {}

WorkerServer::~WorkerServer() { Stop(absl::ZeroDuration()); }

grpc::HealthCheckServiceInterface* WorkerServer::health() const {
  return server_->GetHealthCheckService();
}

void WorkerServer::Stop(absl::Duration grace) {
  server_->GetHealthCheckService()->Shutdown();
  server_->Shutdown(DeadlineAfter(grace));
  server_->Wait();
}

}  // namespace muster
