// Who may call what. docs/security.md has the same table.
#ifndef MUSTER_BASE_TLS_ACCESS_H_
#define MUSTER_BASE_TLS_ACCESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/tls_identity.h"

namespace muster {

class TlsRoles {
 public:
  template <typename... Role>
  static constexpr TlsRoles Of(Role... roles) {
    return TlsRoles((Bit(roles) | ...));
  }
  constexpr bool Has(TlsRole role) const { return (bits_ & Bit(role)) != 0; }

  // "scheduler, operator", in the order of TlsRole.
  std::string Names() const;

 private:
  explicit constexpr TlsRoles(unsigned bits) : bits_(bits) {}
  static constexpr unsigned Bit(TlsRole role) { return 1u << static_cast<unsigned>(role); }

  unsigned bits_;
};

struct MethodAccess {
  absl::string_view service;  // "muster.v1.Fleet"
  absl::string_view method;   // "GetTopology"
  TlsRoles roles;
};

// Every method that a daemon answers, by service.
absl::Span<const MethodAccess> AccessTable();

// `path` is "/muster.v1.Fleet/GetTopology". OK when `caller` may call it; PERMISSION_DENIED says
// who may. What is not in the table may be called by nobody.
absl::Status CheckAccess(absl::string_view path, const TlsIdentity& caller);

}  // namespace muster

#endif  // MUSTER_BASE_TLS_ACCESS_H_
