#include "worker/service/coordinator_channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "base/tls_credentials.h"

namespace muster {
namespace {

// To gRPC this is the shortest time that an attempt to connect is given.
constexpr int kConnectMillis = 5'000;
constexpr int kFirstReconnectMillis = 100;
constexpr int kLongestReconnectMillis = 1000;
// Servers punish pings that come more often than every five minutes. Heartbeats are the probe; to
// gRPC a keepalive is also what bounds how long written bytes may stay unacknowledged.
constexpr int kKeepaliveMillis = 310'000;
constexpr int kUnacknowledgedMillis = 5'000;

}  // namespace

std::shared_ptr<grpc::Channel> ConnectCoordinator(const std::string& address,
                                                  const TlsCredentials* tls) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMillis);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMillis);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestReconnectMillis);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMillis);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kUnacknowledgedMillis);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(
      address, ChannelCredentialsOf(tls, {.role = TlsRole::kCoordinator}), arguments);
}

}  // namespace muster
