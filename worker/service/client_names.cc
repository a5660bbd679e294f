#include "worker/service/client_names.h"

#include <grpcpp/server_context.h>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/tls_caller.h"
#include "worker/engine/batch.h"

namespace muster {

ClientNames::ClientNames(const grpc::ServerContextBase& context) {
  const auto caller = CallerOf(context);
  if (caller.has_value()) prefix_ = absl::StrCat(caller->Name(), ":");
}

absl::StatusOr<std::string> ClientNames::Of(const std::string& client_id) const {
  if (prefix_.empty() || client_id.empty()) return client_id;
  std::string name = absl::StrCat(prefix_, client_id);
  if (name.size() <= BatchLimits::kMaxIdBytes) return name;
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("the client id has ", client_id.size(), " bytes and the certificate's name ",
                   prefix_.size() - 1, "; together they can have ", BatchLimits::kMaxIdBytes - 1),
      {.reason = ErrorReason::kInvalidRequest});
}

}  // namespace muster
