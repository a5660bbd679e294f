#include "client/ctl/fleet_address.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/certs/authority.h"
#include "client/certs/tls_folder.h"
#include "client/ctl/coordinator_record.h"
#include "client/ctl/fleet_client.h"
#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

using testing::HasStatus;

constexpr auto kUnavailable = absl::StatusCode::kUnavailable;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

// With folders of certificates, and a user's directory of its own.
class FleetAddressTest : public ::testing::Test {
 protected:
  FleetAddressTest() {
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    setenv("XDG_RUNTIME_DIR", directory_.c_str(), 1);
    unsetenv("MUSTER_COORDINATOR");
    unsetenv("MUSTER_TLS");
  }
  ~FleetAddressTest() override { std::filesystem::remove_all(directory_); }

  // Of an authority that is made when it is first named.
  std::string Issue(const std::string& authority, const std::string& role) const {
    const std::string ca = absl::StrCat(directory_, "/", authority);
    if (!std::filesystem::exists(ca)) {
      EXPECT_OK(certs::Authority::Create(ca, "muster.local", absl::Now()));
    }
    const auto credentials =
        certs::Authority::Open(ca).value().Issue({.role = role, .id = "w0"}, absl::Now());
    EXPECT_OK(credentials);
    const std::string folder = absl::StrCat(directory_, "/", authority, "-", role);
    EXPECT_OK(certs::WriteTlsFolder(folder, *credentials));
    return folder;
  }
  // What a server that implements nothing answers, in plaintext or with TLS at either end.
  absl::Status Call(const std::string& server_tls, const std::string& client_tls) const {
    grpc::ServerBuilder builder;
    int port = 0;
    const auto credentials = server_tls.empty()
                                 ? grpc::InsecureServerCredentials()
                                 : TlsCredentials::Open(server_tls).value()->ForServer();
    builder.AddListeningPort("127.0.0.1:0", credentials, &port);
    v1::Fleet::Service service;
    builder.RegisterService(&service);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    const auto tls = FleetTls::Open(client_tls);
    EXPECT_OK(tls);
    return FleetClient({absl::StrCat("127.0.0.1:", port), "", *tls}).GetTopology().status();
  }
  void Record(const std::string& tls) const {
    const auto record = CoordinatorRecord::Open();
    ASSERT_OK(record);
    ASSERT_OK(record->Write({"127.0.0.1:1", tls}));
  }

  std::string directory_ = ::testing::TempDir() + "/fleet_address_test.XXXXXX";
};

TEST_F(FleetAddressTest, PlaintextReachesAPlaintextPort) {
  EXPECT_TRUE(HasStatus(Call("", ""), kUnimplemented, ""));
}

TEST_F(FleetAddressTest, CertificatesOfOneAuthorityReachEachOther) {
  EXPECT_TRUE(
      HasStatus(Call(Issue("ca", "coordinator"), Issue("ca", "operator")), kUnimplemented, ""));
}

TEST_F(FleetAddressTest, PlaintextAgainstTlsIsToldToGiveTls) {
  EXPECT_TRUE(
      HasStatus(Call(Issue("ca", "coordinator"), ""), kUnavailable, "expects TLS: give --tls DIR"));
}

TEST_F(FleetAddressTest, TlsAgainstPlaintextIsToldToLeaveItOut) {
  EXPECT_TRUE(HasStatus(Call("", Issue("ca", "operator")), kUnavailable,
                        "does not speak TLS: leave --tls"));
}

TEST_F(FleetAddressTest, AnotherAuthorityIsNotAccepted) {
  EXPECT_TRUE(HasStatus(Call(Issue("ca", "coordinator"), Issue("other", "operator")), kUnavailable,
                        "do not accept each other"));
}

TEST_F(FleetAddressTest, AWorkerIsNoCoordinator) {
  EXPECT_TRUE(HasStatus(Call(Issue("ca", "worker"), Issue("ca", "operator")), kUnavailable,
                        "do not accept each other"));
}

TEST_F(FleetAddressTest, ARoleThatMayNotIsToldWhichCertificateItShowed) {
  const absl::Status status = Call(Issue("ca", "coordinator"), Issue("ca", "worker"));
  EXPECT_TRUE(HasStatus(status, absl::StatusCode::kPermissionDenied, "ca-worker names the"));
}

TEST_F(FleetAddressTest, WhoDoesNotAnswerIsStartedOrNamed) {
  const FleetClient client({"127.0.0.1:1", " (here)", {}});
  EXPECT_TRUE(HasStatus(client.GetTopology().status(), kUnavailable,
                        "no coordinator answers at 127.0.0.1:1 (here): start a fleet"));
}

TEST_F(FleetAddressTest, TheRecordHasTheCertificateOfItsFleet) {
  const std::string folder = Issue("ca", "operator");
  Record(folder);
  const auto found = FindCoordinator({});
  ASSERT_OK(found);
  EXPECT_EQ(found->address, "127.0.0.1:1");
  EXPECT_EQ(found->tls.directory, folder);
  EXPECT_TRUE(found->tls.on());
}

TEST_F(FleetAddressTest, TheFlagComesBeforeTheVariableAndThatBeforeTheRecord) {
  Record(Issue("ca", "scheduler"));
  setenv("MUSTER_TLS", Issue("ca", "operator").c_str(), 1);
  EXPECT_EQ(FindCoordinator({}).value().tls.directory, Issue("ca", "operator"));
  EXPECT_EQ(FindCoordinator({.tls = Issue("ca", "worker")}).value().tls.directory,
            Issue("ca", "worker"));
  EXPECT_EQ(FindCoordinator({.coordinator = "b:2"}).value().tls.directory, Issue("ca", "operator"));
}

TEST_F(FleetAddressTest, AnAddressThatIsNamedHasNoTlsOfTheRecord) {
  Record(Issue("ca", "operator"));
  EXPECT_FALSE(FindCoordinator({.coordinator = "b:2"}).value().tls.on());
}

TEST_F(FleetAddressTest, AFolderWithoutCertificatesIsRefusedAtOnce) {
  EXPECT_FALSE(FindCoordinator({.coordinator = "b:2", .tls = directory_ + "/none"}).ok());
}

}  // namespace
}  // namespace muster::ctl
