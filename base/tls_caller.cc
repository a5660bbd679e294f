#include "base/tls_caller.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>
#include <grpcpp/server_context.h>

namespace muster {

std::vector<std::string> UrisOf(const grpc::AuthContext& context) {
  std::vector<std::string> uris;
  for (const grpc::string_ref& uri : context.FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME)) {
    uris.emplace_back(uri.data(), uri.size());
  }
  return uris;
}

std::optional<TlsIdentity> CallerOf(const grpc::ServerContextBase& context) {
  const std::vector<std::string> uris = UrisOf(*context.auth_context());
  if (uris.empty()) return std::nullopt;
  return TlsIdentityOf(uris).value();
}

}  // namespace muster
