#include "base/tls_flag.h"

#include "absl/strings/str_cat.h"
#include "base/flags.h"
#include "base/tls_files.h"

namespace muster {

void AddTlsFlag(CLI::App& app, std::string& directory) {
  app.add_option("--tls", directory,
                 "Folder with tls.crt, tls.key and ca.crt: encrypts all TCP traffic, and takes "
                 "nobody without a certificate of that authority. Replaced files are noticed")
      ->type_name("DIR")
      ->check(PathOf("directory"));
}

absl::StatusOr<TlsIdentity> ReadTlsFlag(const std::string& directory, TlsRole role, bool insecure) {
  if (insecure) {
    return absl::InvalidArgumentError(
        "--insecure allows plaintext, and --tls forbids it; give one of them");
  }
  absl::StatusOr<TlsIdentity> identity = ReadTlsFiles(directory);
  if (!identity.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--tls: ", identity.status().message()));
  }
  if (identity->role == role) return identity;
  return absl::InvalidArgumentError(
      absl::StrCat("--tls: the certificate in '", directory, "' is that of ", identity->ToUri(),
                   "; this daemon needs one of a ", TlsRoleName(role)));
}

}  // namespace muster
