#include "base/tls_identity.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(TlsIdentity, IsReadFromTheUriAndWrittenAsIt) {
  const struct {
    const char* uri;
    TlsIdentity identity;
    const char* name;
  } cases[] = {
      {"spiffe://lab/muster/worker/gpu-3.cluster_A",
       {"lab", TlsRole::kWorker, "gpu-3.cluster_A"},
       "worker/gpu-3.cluster_A"},
      {"spiffe://a.b-c_1/muster/scheduler", {"a.b-c_1", TlsRole::kScheduler, ""}, "scheduler"},
      {"spiffe://lab/muster/scheduler/chat",
       {"lab", TlsRole::kScheduler, "chat"},
       "scheduler/chat"},
      {"spiffe://lab/muster/operator/anna", {"lab", TlsRole::kOperator, "anna"}, "operator/anna"},
      {"spiffe://lab/muster/coordinator", {"lab", TlsRole::kCoordinator, ""}, "coordinator"},
  };
  for (const auto& [uri, identity, name] : cases) {
    ASSERT_OK_AND_ASSIGN(const TlsIdentity parsed, ParseTlsIdentity(uri));
    EXPECT_EQ(parsed, identity) << uri;
    EXPECT_EQ(parsed.Name(), name);
    EXPECT_EQ(parsed.ToUri(), uri);
  }
}

TEST(TlsIdentity, IsNothingElse) {
  const std::string refused[] = {
      "",
      "spiffe://",
      "SPIFFE://lab/muster/worker/w0",
      "https://lab/muster/worker/w0",
      "spiffe://lab/muster",
      "spiffe://lab/muster/",
      "spiffe://lab/other/worker/w0",
      "spiffe:///muster/worker/w0",
      "spiffe://Lab/muster/worker/w0",
      "spiffe://lab:80/muster/worker/w0",
      "spiffe://me@lab/muster/worker/w0",
      "spiffe://lab/muster/worker",
      "spiffe://lab/muster/worker/",
      "spiffe://lab/muster/worker/w0/",
      "spiffe://lab/muster/worker/w0/x",
      "spiffe://lab/muster/worker/w%30",
      "spiffe://lab/muster/worker/w 0",
      "spiffe://lab/muster/worker/w0?x",
      "spiffe://lab/muster/workers/w0",
      "spiffe://lab/muster/scheduler/",
      "spiffe://lab//muster/scheduler",
      "spiffe://" + std::string(256, 'a') + "/muster/scheduler",
      "spiffe://lab/muster/worker/" + std::string(129, 'w'),
      std::string("spiffe://lab/muster/worker/w\0", 29),
  };
  for (const std::string& uri : refused) {
    EXPECT_STATUS(ParseTlsIdentity(uri), kInvalid, "it must be spiffe://TRUST-DOMAIN/muster/ROLE")
        << uri;
  }
}

TEST(TlsIdentity, IsNotRepeatedAtAnyLengthNorWithControlCharacters) {
  const auto status = ParseTlsIdentity("\x1b[31m" + std::string(1000, 'x')).status();
  EXPECT_LT(status.message().size(), 500u);
  EXPECT_STATUS(status, kInvalid, "\\x1b[31m");
}

TEST(TlsIdentity, OfACertificateIsItsOnlyUri) {
  EXPECT_OK(TlsIdentityOf({"spiffe://lab/muster/scheduler"}));
  EXPECT_STATUS(TlsIdentityOf({}), kInvalid, "has 0 URIs");
  EXPECT_STATUS(TlsIdentityOf({"spiffe://lab/muster/scheduler", "https://example.com"}), kInvalid,
                "has 2 URIs");
  EXPECT_STATUS(TlsIdentityOf({"spiffe://lab/muster/scheduler", "spiffe://lab/muster/operator"}),
                kInvalid, "has 2 URIs");
}

TEST(CheckTlsPeer, WantsTrustDomainRoleAndTheIdWhereItIsKnown) {
  const TlsIdentity w0{"lab", TlsRole::kWorker, "w0"};
  EXPECT_OK(CheckTlsPeer(w0, "lab", {TlsRole::kWorker, "w0"}));
  EXPECT_OK(CheckTlsPeer(w0, "lab", {TlsRole::kWorker, ""}));
  constexpr auto kUnauthenticated = absl::StatusCode::kUnauthenticated;
  EXPECT_STATUS(CheckTlsPeer(w0, "lab", {TlsRole::kWorker, "w1"}), kUnauthenticated,
                "is that of spiffe://lab/muster/worker/w0; expected spiffe://lab/muster/worker/w1");
  EXPECT_STATUS(CheckTlsPeer(w0, "lab", {TlsRole::kCoordinator, ""}), kUnauthenticated,
                "expected spiffe://lab/muster/coordinator with any id");
  EXPECT_STATUS(CheckTlsPeer(w0, "plant", {TlsRole::kWorker, "w0"}), kUnauthenticated,
                "expected spiffe://plant/muster/worker/w0");
}

TEST(CheckIsWorker, BindsACertificateToItsWorker) {
  EXPECT_OK(CheckIsWorker(std::nullopt, "w0"));
  EXPECT_OK(CheckIsWorker(TlsIdentity{"lab", TlsRole::kWorker, "w0"}, "w0"));
  constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
  EXPECT_STATUS(CheckIsWorker(TlsIdentity{"lab", TlsRole::kWorker, "w1"}, "w0"), kDenied,
                "the certificate is that of worker/w1, who cannot speak for worker w0");
  EXPECT_STATUS(CheckIsWorker(TlsIdentity{"lab", TlsRole::kScheduler, "w0"}, "w0"), kDenied,
                "that of scheduler/w0");
}

}  // namespace
}  // namespace muster
