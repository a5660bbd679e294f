#include "base/port_limits.h"

#include <grpcpp/server_builder.h>

namespace muster {
namespace {

constexpr int kMaxMetadataBytes = 8 << 10;
constexpr int kMaxCallsOfAConnection = 1024;
constexpr int kHandshakeMillis = 10'000;
// A host that lost its power is noticed, whether or not a call is open.
constexpr int kKeepaliveMillis = 20'000;
constexpr int kUnacknowledgedMillis = 10'000;

}  // namespace

void SetPortLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxCallsOfAConnection);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMillis);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMillis);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kUnacknowledgedMillis);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

}  // namespace muster
