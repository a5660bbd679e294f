#include "client/certs/openssl_ptr.h"

#include <openssl/err.h>

#include "absl/strings/str_cat.h"

namespace muster::certs {

absl::Status OpenSslError(absl::string_view what) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return absl::InternalError(absl::StrCat(
      "cannot ", what, ": ", reason == nullptr ? "libcrypto gives no reason" : reason));
}

}  // namespace muster::certs
