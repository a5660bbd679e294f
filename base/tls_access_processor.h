#ifndef MUSTER_BASE_TLS_ACCESS_PROCESSOR_H_
#define MUSTER_BASE_TLS_ACCESS_PROCESSOR_H_

#include <memory>
#include <string>

namespace grpc {
class AuthMetadataProcessor;
}  // namespace grpc

namespace muster {

// Looks at every call on a port of mutual TLS before any service does: UNAUTHENTICATED without an
// identity of `trust_domain`, else as CheckAccess.
std::shared_ptr<grpc::AuthMetadataProcessor> MakeAccessProcessor(const std::string& trust_domain);

}  // namespace muster

#endif  // MUSTER_BASE_TLS_ACCESS_PROCESSOR_H_
