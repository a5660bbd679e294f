#include "base/tls_files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/status_matchers.h"
#include "tests/support/test_certificates.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr char kWorker[] = "spiffe://lab/muster/worker/w0";

class TlsFilesTest : public ::testing::Test {
 protected:
  TlsFilesTest() { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& file) const { return directory_ + "/" + file; }
  void Write(const std::string& file, const std::string& text) const {
    std::ofstream(Path(file)) << text;
  }

  const std::string directory_ = ::testing::TempDir() + "/tls-" +
                                 ::testing::UnitTest::GetInstance()->current_test_info()->name();
  const TestAuthority authority_;
};

TEST_F(TlsFilesTest, SayWhoHoldsThem) {
  authority_.Issue({.uris = {kWorker}}, directory_);
  ASSERT_OK_AND_ASSIGN(const TlsIdentity identity, ReadTlsFiles(directory_));
  EXPECT_EQ(identity.ToUri(), kWorker);
}

TEST_F(TlsFilesTest, AreNamedWhereTheyAreMissingOrEmpty) {
  const auto kNotFound = absl::StatusCode::kNotFound;
  EXPECT_STATUS(ReadTlsFiles(directory_), kNotFound, "/tls.crt: No such file or directory");
  for (const std::string file : {"tls.crt", "tls.key", "ca.crt"}) {
    authority_.Issue({.uris = {kWorker}}, directory_);
    std::filesystem::remove(Path(file));
    EXPECT_STATUS(ReadTlsFiles(directory_), kNotFound, file + ": No such file or directory");
    Write(file, "");
    EXPECT_STATUS(ReadTlsFiles(directory_), kNotFound, file + ": it is empty");
  }
}

TEST_F(TlsFilesTest, AreNamedWhereTheyMayNotBeRead) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  authority_.Issue({.uris = {kWorker}}, directory_);
  std::filesystem::permissions(Path("tls.key"), std::filesystem::perms::none);
  EXPECT_STATUS(ReadTlsFiles(directory_), absl::StatusCode::kPermissionDenied,
                "tls.key: Permission denied");
}

TEST_F(TlsFilesTest, AreRefusedWhereTheyAreNotPem) {
  for (const std::string file : {"tls.crt", "ca.crt"}) {
    authority_.Issue({.uris = {kWorker}}, directory_);
    Write(file, "no certificate");
    EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid, file + ": it must hold certificates in PEM");
    Write(file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid, file + ": it must hold certificates in PEM");
  }
  authority_.Issue({.uris = {kWorker}}, directory_);
  Write("tls.key", "no key");
  EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid, "tls.key: it must hold a private key in PEM");
}

TEST_F(TlsFilesTest, BelongTogether) {
  const std::string other = directory_ + "-other";
  authority_.Issue({.uris = {kWorker}}, directory_);
  authority_.Issue({.uris = {kWorker}}, other);
  std::filesystem::copy_file(other + "/tls.key", Path("tls.key"),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid,
                "tls.key: the key is not that of the certificate in tls.crt");
  TestAuthority().Issue({.uris = {kWorker}}, other);
  authority_.Issue({.uris = {kWorker}}, directory_);
  std::filesystem::copy_file(other + "/ca.crt", Path("ca.crt"),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid, "ca.crt does not vouch for the certificate");
}

TEST_F(TlsFilesTest, AreValidNow) {
  authority_.Issue({.uris = {kWorker}, .begins = -absl::Hours(2), .ends = -absl::Hours(1)},
                   directory_);
  EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid, "tls.crt: the certificate expired at ");
  authority_.Issue({.uris = {kWorker}, .begins = absl::Hours(1), .ends = absl::Hours(2)},
                   directory_);
  EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid, "is not yet valid, but from ");
}

TEST_F(TlsFilesTest, HaveOneIdentity) {
  authority_.Issue({}, directory_);
  EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid, "tls.crt: the certificate has 0 URIs");
  authority_.Issue({.uris = {"spiffe://lab/muster/janitor"}}, directory_);
  EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid, "'spiffe://lab/muster/janitor'; it must be");
}

TEST_F(TlsFilesTest, AreForWhatTheirHolderDoes) {
  authority_.Issue({.uris = {kWorker}, .usage = "serverAuth"}, directory_);
  EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid, "is not for clients");
  authority_.Issue({.uris = {kWorker}, .usage = "clientAuth"}, directory_);
  EXPECT_STATUS(ReadTlsFiles(directory_), kInvalid, "is not for servers");
  authority_.Issue({.uris = {"spiffe://lab/muster/scheduler"}, .usage = "clientAuth"}, directory_);
  EXPECT_OK(ReadTlsFiles(directory_));
}

}  // namespace
}  // namespace muster
