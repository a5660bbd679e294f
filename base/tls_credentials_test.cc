// Over real connections on loopback: a server with health and a control service that does nothing.
#include "base/tls_credentials.h"

#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/muster/v1/worker_control.grpc.pb.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_certificates.h"

namespace muster {
namespace {

using grpc::StatusCode;

constexpr char kHealth[] = "/grpc.health.v1.Health/Check";
constexpr char kWatch[] = "/grpc.health.v1.Health/Watch";

std::chrono::system_clock::time_point Deadline() {
  return std::chrono::system_clock::now() + std::chrono::seconds(20);
}

// The empty request of any method.
grpc::Status Call(grpc::Channel* channel, const std::string& method) {
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  grpc::CompletionQueue queue;
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(
      std::shared_ptr<grpc::ChannelInterface>(channel, [](grpc::ChannelInterface*) {}));
  grpc::ByteBuffer response;
  grpc::Status status;
  const grpc::Slice nothing("");
  const grpc::ByteBuffer request(&nothing, 1);
  const auto call = stub.PrepareUnaryCall(&context, method, request, &queue);
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status;
}

class TlsCredentialsTest : public ::testing::Test {
 protected:
  TlsCredentialsTest() {
    gpr_set_log_function([](gpr_log_func_args*) {});
    std::filesystem::remove_all(root_);
    authority_.Issue({.uris = {"spiffe://lab/muster/worker/w0"}}, root_ + "/server");
    Serve();
  }

  void Serve() {
    const auto credentials = TlsCredentials::Open(root_ + "/server");
    ASSERT_OK(credentials);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", (*credentials)->ForServer(), &port_);
    builder.RegisterService(&control_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }

  std::string Folder(const TestAuthority& authority, const TestCertificate& certificate) {
    const std::string folder = absl::StrCat(root_, "/client", ++folders_);
    authority.Issue(certificate, folder);
    return folder;
  }
  // A connection of its own.
  std::shared_ptr<grpc::Channel> Connect(std::shared_ptr<grpc::ChannelCredentials> credentials) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", port_), credentials, arguments);
  }
  std::shared_ptr<grpc::Channel> ConnectAs(const std::string& folder,
                                           const TlsPeer& peer = {TlsRole::kWorker, "w0"}) {
    const auto credentials = TlsCredentials::Open(folder);
    EXPECT_OK(credentials);
    return Connect((*credentials)->ForPeer(peer));
  }
  grpc::Status CallAs(const std::string& uri, const std::string& method) {
    return Call(ConnectAs(Folder(authority_, {.uris = {uri}})).get(), method);
  }
  // Files that TlsCredentials would refuse, used all the same.
  grpc::Status CallWith(const std::string& folder, const std::string& root) {
    const auto Read = [](const std::string& path) {
      std::ifstream in(path);
      return std::string(std::istreambuf_iterator<char>(in), {});
    };
    grpc::SslCredentialsOptions options{.pem_root_certs = Read(root + "/ca.crt")};
    if (!folder.empty()) {
      options.pem_private_key = Read(folder + "/tls.key");
      options.pem_cert_chain = Read(folder + "/tls.crt");
    }
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride("worker.muster");
    return Call(grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", port_),
                                          grpc::SslCredentials(options), arguments)
                    .get(),
                kHealth);
  }

  const std::string root_ = ::testing::TempDir() + "/tls-credentials-" +
                            ::testing::UnitTest::GetInstance()->current_test_info()->name();
  const TestAuthority authority_;
  int port_ = 0;
  int folders_ = 0;
  v1::WorkerControl::Service control_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(TlsCredentialsTest, EveryRoleMayAskForHealth) {
  for (const std::string holder : {"worker/w1", "scheduler", "operator/anna", "coordinator"}) {
    EXPECT_TRUE(CallAs("spiffe://lab/muster/" + holder, kHealth).ok()) << holder;
  }
}

TEST_F(TlsCredentialsTest, AMethodIsRefusedBeforeAnyServiceSeesIt) {
  const grpc::Status refused =
      CallAs("spiffe://lab/muster/scheduler", "/muster.v1.WorkerControl/Assign");
  EXPECT_EQ(refused.error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(refused.error_message(),
            "scheduler may not call muster.v1.WorkerControl.Assign; certificates that may are "
            "those of: coordinator");
  EXPECT_EQ(
      CallAs("spiffe://lab/muster/coordinator", "/muster.v1.WorkerControl/Assign").error_code(),
      StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(CallAs("spiffe://lab/muster/operator", "/no.such/Method").error_code(),
            StatusCode::PERMISSION_DENIED);
}

TEST_F(TlsCredentialsTest, AnotherTrustDomainIsRefusedThoughTheAuthorityIsTheSame) {
  const std::string folder = Folder(authority_, {.uris = {"spiffe://plant/muster/operator"}});
  const grpc::Status refused = CallWith(folder, folder);
  EXPECT_EQ(refused.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(refused.error_message(),
            "the certificate is of trust domain plant; this fleet is of lab");
}

TEST_F(TlsCredentialsTest, ACertificateWithoutIdentityIsRefused) {
  const std::string folder = Folder(authority_, {});
  const grpc::Status refused = CallWith(folder, folder);
  EXPECT_EQ(refused.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_NE(refused.error_message().find("has 0 URIs"), std::string::npos);
}

TEST_F(TlsCredentialsTest, OnlyAValidCertificateOfTheAuthorityGetsThrough) {
  const std::string uri = "spiffe://lab/muster/operator";
  const std::string good = Folder(authority_, {.uris = {uri}});
  EXPECT_TRUE(CallWith(good, good).ok());
  const std::string refused[] = {
      "",  // none at all
      Folder(TestAuthority(), {.uris = {uri}}),
      Folder(authority_, {.uris = {uri}, .begins = -absl::Hours(2), .ends = -absl::Hours(1)}),
      Folder(authority_, {.uris = {uri}, .begins = absl::Hours(1), .ends = absl::Hours(2)}),
      Folder(authority_, {.uris = {uri}, .usage = "serverAuth"}),
  };
  for (const std::string& folder : refused) {
    EXPECT_EQ(CallWith(folder, good).error_code(), StatusCode::UNAVAILABLE) << folder;
  }
}

TEST_F(TlsCredentialsTest, PlaintextGetsNoAnswer) {
  EXPECT_EQ(Call(Connect(grpc::InsecureChannelCredentials()).get(), kHealth).error_code(),
            StatusCode::UNAVAILABLE);
}

TEST_F(TlsCredentialsTest, AClientTalksToNobodyButItsPeer) {
  const std::string folder = Folder(authority_, {.uris = {"spiffe://lab/muster/coordinator/main"}});
  EXPECT_TRUE(Call(ConnectAs(folder, {TlsRole::kWorker, ""}).get(), kHealth).ok());
  for (const TlsPeer& peer :
       {TlsPeer{TlsRole::kWorker, "w1"}, TlsPeer{TlsRole::kCoordinator, ""}}) {
    EXPECT_EQ(Call(ConnectAs(folder, peer).get(), kHealth).error_code(), StatusCode::UNAVAILABLE);
  }
  const std::string stranger = Folder(authority_, {.uris = {"spiffe://plant/muster/coordinator"}});
  EXPECT_EQ(Call(ConnectAs(stranger).get(), kHealth).error_code(), StatusCode::UNAVAILABLE);
  const std::string other = Folder(TestAuthority(), {.uris = {"spiffe://lab/muster/coordinator"}});
  EXPECT_EQ(Call(ConnectAs(other).get(), kHealth).error_code(), StatusCode::UNAVAILABLE);
}

// A stream of health that stays open over a rotation of every file, authority included.
TEST_F(TlsCredentialsTest, ReplacedFilesServeNewConnectionsWhileStreamsGoOn) {
  const std::string folder = Folder(authority_, {.uris = {"spiffe://lab/muster/operator"}});
  const auto channel = ConnectAs(folder);
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(channel);
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  grpc::CompletionQueue queue;
  const auto Await = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  const auto stream = stub.PrepareCall(&context, kWatch, &queue);
  stream->StartCall(nullptr);
  ASSERT_TRUE(Await());
  const grpc::Slice nothing("");
  stream->WriteLast(grpc::ByteBuffer(&nothing, 1), grpc::WriteOptions(), nullptr);
  ASSERT_TRUE(Await());
  grpc::ByteBuffer state;
  stream->Read(&state, nullptr);
  ASSERT_TRUE(Await());

  const TestAuthority next;
  next.Issue({.uris = {"spiffe://lab/muster/worker/w0"}}, root_ + "/server");
  next.Issue({.uris = {"spiffe://lab/muster/operator"}}, folder);
  // New ones are served as soon as the server has looked at its files.
  grpc::Status status;
  const auto give_up = Deadline();
  do {
    status = Call(ConnectAs(folder).get(), kHealth);
  } while (!status.ok() && std::chrono::system_clock::now() < give_up);
  EXPECT_TRUE(status.ok()) << status.error_message();
  const std::string old = Folder(authority_, {.uris = {"spiffe://lab/muster/operator"}});
  EXPECT_EQ(Call(ConnectAs(old).get(), kHealth).error_code(), StatusCode::UNAVAILABLE);

  server_->GetHealthCheckService()->SetServingStatus(false);
  grpc::ByteBuffer changed;
  stream->Read(&changed, nullptr);
  EXPECT_TRUE(Await()) << "the stream that was open before did not go on";
  context.TryCancel();
  grpc::Status ended;
  stream->Finish(&ended, nullptr);
  Await();
}

}  // namespace
}  // namespace muster
