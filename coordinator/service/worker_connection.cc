#include "coordinator/service/worker_connection.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "base/port_limits.h"
#include "base/tls_credentials.h"

namespace muster {
namespace {

// To gRPC this is the shortest time that an attempt to connect is given. A worker that is slow to
// answer is not lost: its lease tells.
constexpr int kConnectMillis = 20'000;
constexpr int kFirstReconnectMillis = 100;
constexpr int kLongestReconnectMillis = 1000;

std::shared_ptr<grpc::Channel> Connect(
    const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMillis);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMillis);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestReconnectMillis);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

}  // namespace

WorkerConnection::WorkerConnection(const std::string& address, const std::string& worker_id,
                                   const TlsCredentials* tls)
    : stub_(v1::WorkerControl::NewStub(Connect(
          address, ChannelCredentialsOf(tls, {.role = TlsRole::kWorker, .id = worker_id})))) {}

}  // namespace muster
