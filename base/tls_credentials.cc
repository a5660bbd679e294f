#include "base/tls_credentials.h"

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <cstdlib>
#include <functional>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "base/tls_access_processor.h"
#include "base/tls_files.h"

namespace muster {
namespace {

namespace tls = grpc::experimental;

constexpr unsigned kLookEverySeconds = 1;

// gRPC 1.51 has no word for "TLS 1.3 at least", but lets the suites of TLS 1.2 be chosen; those of
// 1.3 OpenSSL offers by itself. OpenSSL takes no empty list, and this suite needs a key that was
// shared beforehand, which neither end ever has: no handshake of TLS 1.2 succeeds.
constexpr char kSuitesVariable[] = "GRPC_SSL_CIPHER_SUITES";
constexpr char kSuites[] = "PSK-AES256-GCM-SHA384";

// What a client thinks of the server's certificate, once its chain and dates have been checked.
class PeerVerifier final : public tls::ExternalCertificateVerifier {
 public:
  PeerVerifier(std::string trust_domain, TlsPeer peer)
      : trust_domain_(std::move(trust_domain)), peer_(std::move(peer)) {}

  bool Verify(tls::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* status) override {
    const absl::Status checked = Check(*request);
    *status = checked.ok()
                  ? grpc::Status::OK
                  : grpc::Status(grpc::StatusCode::UNAUTHENTICATED, std::string(checked.message()));
    return true;
  }
  void Cancel(tls::TlsCustomVerificationCheckRequest*) override {}

 private:
  absl::Status Check(const tls::TlsCustomVerificationCheckRequest& request) const {
    std::vector<std::string> uris;
    for (const grpc::string_ref& uri : request.uri_names())
      uris.emplace_back(uri.data(), uri.size());
    MUSTER_ASSIGN_OR_RETURN(const TlsIdentity identity, TlsIdentityOf(uris));
    return CheckTlsPeer(identity, trust_domain_, peer_);
  }

  const std::string trust_domain_;
  const TlsPeer peer_;
};

void WatchFiles(const std::shared_ptr<tls::CertificateProviderInterface>& files,
                tls::TlsCredentialsOptions& options) {
  options.set_certificate_provider(files);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TlsCredentials>> TlsCredentials::Open(
    const std::string& directory) {
  if (directory.empty()) return nullptr;
  MUSTER_ASSIGN_OR_RETURN(TlsIdentity identity, ReadTlsFiles(directory));
  setenv(kSuitesVariable, kSuites, /*overwrite=*/1);
  return std::shared_ptr<const TlsCredentials>(new TlsCredentials(directory, std::move(identity)));
}

TlsCredentials::TlsCredentials(const std::string& directory, TlsIdentity identity)
    : identity_(std::move(identity)),
      files_(std::make_shared<tls::FileWatcherCertificateProvider>(
          TlsPath(directory, kTlsKeyFile), TlsPath(directory, kTlsCertificateFile),
          TlsPath(directory, kTlsAuthorityFile), kLookEverySeconds)) {}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials::ForServer() const {
  tls::TlsServerCredentialsOptions options(files_);
  WatchFiles(files_, options);
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  std::shared_ptr<grpc::ServerCredentials> credentials = tls::TlsServerCredentials(options);
  credentials->SetAuthMetadataProcessor(MakeAccessProcessor(identity_.trust_domain));
  return credentials;
}

std::shared_ptr<grpc::ChannelCredentials> TlsCredentials::ForPeer(const TlsPeer& peer) const {
  tls::TlsChannelCredentialsOptions options;
  WatchFiles(files_, options);
  options.set_verify_server_certs(true);
  options.set_check_call_host(false);
  options.set_certificate_verifier(
      tls::ExternalCertificateVerifier::Create<PeerVerifier>(identity_.trust_domain, peer));
  return tls::TlsCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> ServerCredentialsOf(const TlsCredentials* tls) {
  return tls == nullptr ? grpc::InsecureServerCredentials() : tls->ForServer();
}

std::shared_ptr<grpc::ChannelCredentials> ChannelCredentialsOf(const TlsCredentials* tls,
                                                               const TlsPeer& peer) {
  return tls == nullptr ? grpc::InsecureChannelCredentials() : tls->ForPeer(peer);
}

}  // namespace muster
