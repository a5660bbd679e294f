#include "base/tls_access_processor.h"

#include <grpcpp/security/auth_metadata_processor.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/tls_access.h"
#include "base/tls_caller.h"
#include "base/wire_status.h"

namespace muster {
namespace {

class AccessProcessor final : public grpc::AuthMetadataProcessor {
 public:
  explicit AccessProcessor(std::string trust_domain) : trust_domain_(std::move(trust_domain)) {}

  bool IsBlocking() const override { return false; }

  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* context, OutputMetadata*,
                       OutputMetadata*) override {
    return ToGrpc(Check(metadata, *context));
  }

 private:
  absl::Status Check(const InputMetadata& metadata, const grpc::AuthContext& context) const {
    const auto caller = TlsIdentityOf(UrisOf(context));
    if (!caller.ok()) return absl::UnauthenticatedError(caller.status().message());
    if (caller->trust_domain != trust_domain_) {
      return absl::UnauthenticatedError(absl::StrCat("the certificate is of trust domain ",
                                                     caller->trust_domain, "; this fleet is of ",
                                                     trust_domain_));
    }
    const auto path = metadata.find(":path");
    if (path == metadata.end()) return absl::UnauthenticatedError("the call names no method");
    return CheckAccess({path->second.data(), path->second.size()}, *caller);
  }

  const std::string trust_domain_;
};

}  // namespace

std::shared_ptr<grpc::AuthMetadataProcessor> MakeAccessProcessor(const std::string& trust_domain) {
  return std::make_shared<AccessProcessor>(trust_domain);
}

}  // namespace muster
