#include "client/certs/authority.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "absl/time/clock.h"
#include "client/certs/certificate_facts.h"
#include "client/certs/pem.h"
#include "tests/support/status_matchers.h"

namespace muster::certs {
namespace {

using testing::HasStatus;

class AuthorityTest : public ::testing::Test {
 protected:
  AuthorityTest() { EXPECT_NE(mkdtemp(directory_.data()), nullptr); }
  ~AuthorityTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  mode_t Mode(const std::string& name) const {
    struct stat facts = {};
    EXPECT_EQ(stat(Path(name).c_str(), &facts), 0);
    return facts.st_mode & 07777;
  }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name)) << text;
  }
  Authority Create(const std::string& domain = "muster.local") const {
    auto authority = Authority::Create(Path("ca"), domain, now_);
    EXPECT_OK(authority);
    return *std::move(authority);
  }
  CertificateFacts Facts(const Credentials& credentials) const {
    Write("issued.crt", credentials.certificate);
    return FactsOf(*ReadCertificates(Path("issued.crt")).value()[0]);
  }

  const absl::Time now_ = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()));
  std::string directory_ = ::testing::TempDir() + "/authority_test.XXXXXX";
};

TEST_F(AuthorityTest, KeepsItsKeyToItsUser) {
  Create();
  EXPECT_EQ(Mode("ca"), 0700u);
  EXPECT_EQ(Mode("ca/ca.key"), 0600u);
}

TEST_F(AuthorityTest, LastsTenYearsAndNamesItsTrustDomain) {
  Create("test.example");
  const auto certificates = ReadCertificates(Path("ca/ca.crt"));
  ASSERT_OK(certificates);
  const CertificateFacts facts = FactsOf(*(*certificates)[0]);
  EXPECT_TRUE(facts.authority);
  EXPECT_EQ(facts.trust_domain, "test.example");
  EXPECT_EQ(facts.not_after, now_ + absl::Hours(24 * 3650));
  EXPECT_EQ(Authority::Open(Path("ca")).value().trust_domain(), "test.example");
}

TEST_F(AuthorityTest, OverwritesNothing) {
  Create();
  EXPECT_TRUE(HasStatus(Authority::Create(Path("ca"), "muster.local", now_).status(),
                        absl::StatusCode::kAlreadyExists, "is there and not empty"));
  Write("file", "text");
  EXPECT_TRUE(HasStatus(Authority::Create(Path("file"), "muster.local", now_).status(),
                        absl::StatusCode::kAlreadyExists, "is there"));
}

TEST_F(AuthorityTest, TakesAnEmptyFolderAndKeepsOthersOut) {
  std::filesystem::create_directory(Path("ca"));
  Create();
  EXPECT_EQ(Mode("ca"), 0700u);
}

TEST_F(AuthorityTest, MakesNoFolderForABadTrustDomain) {
  EXPECT_TRUE(HasStatus(Authority::Create(Path("ca"), "a b", now_).status(),
                        absl::StatusCode::kInvalidArgument, "'a b' is no trust domain"));
  EXPECT_FALSE(std::filesystem::exists(Path("ca")));
}

TEST_F(AuthorityTest, AWorkerIsNamedByUriAndDnsAndMayListen) {
  const auto credentials = Create().Issue({.role = "worker",
                                           .id = "gpu-0",
                                           .dns_names = {"gpu-0.workers.svc"},
                                           .ip_addresses = {"10.0.0.4", "fd00::4"}},
                                          now_);
  ASSERT_OK(credentials);
  const CertificateFacts facts = Facts(*credentials);
  ASSERT_TRUE(facts.identity.has_value());
  EXPECT_EQ(facts.identity->ToUri(), "spiffe://muster.local/muster/worker/gpu-0");
  EXPECT_EQ(facts.dns_names, (std::vector<std::string>{"worker.muster", "gpu-0.workers.svc"}));
  EXPECT_EQ(facts.ip_addresses, (std::vector<std::string>{"10.0.0.4", "fd00::4"}));
  EXPECT_EQ(facts.subject, "CN=worker/gpu-0,O=Muster");
  EXPECT_EQ(facts.not_after, now_ + absl::Hours(24 * 90));
  EXPECT_FALSE(facts.authority);
}

TEST_F(AuthorityTest, AClientHasNoDnsNames) {
  const Authority authority = Create();
  const auto credentials = authority.Issue({.role = "scheduler"}, now_);
  ASSERT_OK(credentials);
  EXPECT_TRUE(Facts(*credentials).dns_names.empty());
  EXPECT_TRUE(HasStatus(authority.Issue({.role = "operator", .dns_names = {"a.b"}}, now_).status(),
                        absl::StatusCode::kInvalidArgument, "does not listen"));
}

TEST_F(AuthorityTest, EveryCertificateHasItsOwnKey) {
  const Authority authority = Create();
  EXPECT_NE(authority.Issue({.role = "scheduler"}, now_)->key,
            authority.Issue({.role = "scheduler"}, now_)->key);
}

TEST_F(AuthorityTest, RefusesNamesThatAreNone) {
  const Authority authority = Create();
  for (const std::string name : {"", "a b", "-a", "a..b", "*", "*.com", "a.*.b"}) {
    const auto issued = authority.Issue({.role = "coordinator", .dns_names = {name}}, now_);
    EXPECT_TRUE(HasStatus(issued.status(), absl::StatusCode::kInvalidArgument, "is no DNS name"))
        << name;
  }
  for (const std::string address : {"", "1.2.3", "1.2.3.256", "localhost", "fd00::g"}) {
    const auto issued = authority.Issue({.role = "coordinator", .ip_addresses = {address}}, now_);
    EXPECT_TRUE(HasStatus(issued.status(), absl::StatusCode::kInvalidArgument, "is no IP address"))
        << address;
  }
}

TEST_F(AuthorityTest, ACertificateDoesNotOutliveItsAuthority) {
  const Authority authority = Create();
  const absl::Time late = now_ + kAuthorityValidity - absl::Hours(24 * 30 + 1);
  EXPECT_TRUE(HasStatus(authority.Issue({.role = "operator"}, late).status(),
                        absl::StatusCode::kFailedPrecondition, "may last 30 days at most"));
  EXPECT_TRUE(HasStatus(
      authority.Issue({.role = "operator"}, now_ + kAuthorityValidity + absl::Hours(1)).status(),
      absl::StatusCode::kFailedPrecondition, "make a new one"));
}

TEST_F(AuthorityTest, OpeningSaysWhatIsMissing) {
  EXPECT_TRUE(HasStatus(Authority::Open(Path("none")).status(), absl::StatusCode::kNotFound,
                        "`musterctl certs init"));
  const Authority authority = Create();
  std::filesystem::remove(Path("ca/ca.key"));
  EXPECT_TRUE(HasStatus(Authority::Open(Path("ca")).status(), absl::StatusCode::kNotFound,
                        "has ca.crt but no ca.key"));
  Write("ca/ca.key", authority.Issue({.role = "operator"}, now_)->key);
  EXPECT_TRUE(HasStatus(Authority::Open(Path("ca")).status(), absl::StatusCode::kFailedPrecondition,
                        "is not the key of"));
  Write("ca/ca.key", "what");
  EXPECT_TRUE(HasStatus(Authority::Open(Path("ca")).status(), absl::StatusCode::kInvalidArgument,
                        "holds no private key"));
  Write("ca/ca.crt", "what");
  EXPECT_TRUE(HasStatus(Authority::Open(Path("ca")).status(), absl::StatusCode::kInvalidArgument,
                        "holds no certificate"));
}

TEST_F(AuthorityTest, WhatItIssuedIsNoAuthority) {
  const auto credentials = Create().Issue({.role = "coordinator"}, now_);
  Write("ca/ca.crt", credentials->certificate);
  std::filesystem::remove(Path("ca/ca.key"));
  Write("ca/ca.key", credentials->key);
  EXPECT_TRUE(HasStatus(Authority::Open(Path("ca")).status(), absl::StatusCode::kFailedPrecondition,
                        "is not the certificate of an"));
}

TEST_F(AuthorityTest, ABrokenCertificateIsTold) {
  Create();
  std::ofstream(Path("ca/ca.crt"), std::ios::app)
      << "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  EXPECT_TRUE(HasStatus(ReadCertificates(Path("ca/ca.crt")).status(),
                        absl::StatusCode::kInvalidArgument, "broken certificate"));
}

}  // namespace
}  // namespace muster::certs
