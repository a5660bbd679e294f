// Limits of the ports that speak gRPC, the same in both daemons; docs/security.md lists them.
#ifndef MUSTER_BASE_PORT_LIMITS_H_
#define MUSTER_BASE_PORT_LIMITS_H_

namespace grpc {
class ServerBuilder;
}  // namespace grpc

namespace muster {

// Of a message, either way.
inline constexpr int kMaxMessageBytes = 64 << 20;

// Those, and others that only a port has. Ports of two daemons are never one.
void SetPortLimits(grpc::ServerBuilder& builder);

}  // namespace muster

#endif  // MUSTER_BASE_PORT_LIMITS_H_
