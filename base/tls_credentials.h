// Mutual TLS for gRPC: both ends show a certificate, and each looks at the other's identity.
#ifndef MUSTER_BASE_TLS_CREDENTIALS_H_
#define MUSTER_BASE_TLS_CREDENTIALS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/tls_identity.h"

namespace grpc {
class ChannelCredentials;
class ServerCredentials;
namespace experimental {
class CertificateProviderInterface;
}  // namespace experimental
}  // namespace grpc

namespace muster {

// The files of one folder (base/tls_files.h), which are looked at every second: connections that
// begin after they were replaced use the new ones, and those that are there go on. TLS 1.3 only.
// Thread-safe; what it hands out may outlive it.
class TlsCredentials {
 public:
  // Null, which stands for plaintext, where `directory` is empty. Errors: those of ReadTlsFiles. To
  // be called before the process has used TLS for the first time, since it says what gRPC may agree
  // to.
  static absl::StatusOr<std::shared_ptr<const TlsCredentials>> Open(const std::string& directory);

  // Of the certificate that was there when it was opened.
  const TlsIdentity& identity() const { return identity_; }

  // For a server: clients must show a certificate of the same authority and trust domain, and may
  // call what their role may (base/tls_access.h).
  std::shared_ptr<grpc::ServerCredentials> ForServer() const;
  // For a channel whose other end must be `peer`, of the same authority and trust domain, whatever
  // its address and host name. A handshake with anybody else fails, UNAVAILABLE.
  std::shared_ptr<grpc::ChannelCredentials> ForPeer(const TlsPeer& peer) const;

 private:
  TlsCredentials(const std::string& directory, TlsIdentity identity);

  const TlsIdentity identity_;
  const std::shared_ptr<grpc::experimental::CertificateProviderInterface> files_;
};

// As ForServer and ForPeer; plaintext where `tls` is null.
std::shared_ptr<grpc::ServerCredentials> ServerCredentialsOf(const TlsCredentials* tls);
std::shared_ptr<grpc::ChannelCredentials> ChannelCredentialsOf(const TlsCredentials* tls,
                                                               const TlsPeer& peer);

}  // namespace muster

#endif  // MUSTER_BASE_TLS_CREDENTIALS_H_
