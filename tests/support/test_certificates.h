// Certificates for tests, made on the spot.
#ifndef MUSTER_TESTS_SUPPORT_TEST_CERTIFICATES_H_
#define MUSTER_TESTS_SUPPORT_TEST_CERTIFICATES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace muster {

struct TestCertificate {
  std::vector<std::string> uris;            // e.g. "spiffe://test/muster/worker/w0"
  absl::Duration begins = -absl::Hours(1);  // from now
  absl::Duration ends = absl::Hours(1);     // from now
  std::string usage = "serverAuth,clientAuth";
};

// A private authority. What cannot be made or written ends the process.
class TestAuthority {
 public:
  TestAuthority();
  ~TestAuthority();

  // Writes tls.crt, tls.key and ca.crt into `directory`, which it makes if need be. Each file
  // appears at once, over an older one.
  void Issue(const TestCertificate& certificate, const std::string& directory) const;

 private:
  struct Keys;
  const std::unique_ptr<Keys> keys_;
};

}  // namespace muster

#endif  // MUSTER_TESTS_SUPPORT_TEST_CERTIFICATES_H_
