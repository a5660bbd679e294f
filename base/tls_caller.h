// Who makes a call.
#ifndef MUSTER_BASE_TLS_CALLER_H_
#define MUSTER_BASE_TLS_CALLER_H_

#include <optional>
#include <string>
#include <vector>

#include "base/tls_identity.h"

namespace grpc {
class AuthContext;
class ServerContextBase;
}  // namespace grpc

namespace muster {

// The URIs of the other end's certificate; none on a plaintext port.
std::vector<std::string> UrisOf(const grpc::AuthContext& context);

// Nothing on a plaintext port. On others every caller has an identity, or the call would not have
// come as far as a service.
std::optional<TlsIdentity> CallerOf(const grpc::ServerContextBase& context);

}  // namespace muster

#endif  // MUSTER_BASE_TLS_CALLER_H_
