#include "worker/service/worker_server.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/unix_socket.h"
#include "tests/support/status_matchers.h"
#include "worker/service/health_reporter.h"

namespace muster {
namespace {

struct Answer {
  grpc::Status status;
  std::string bytes;
};

// Calls `method` of a service that has no generated code here, with an empty message.
Answer Call(const std::string& address, const std::string& method) {
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  grpc::Slice nothing;
  const auto call = stub.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&nothing, 1), &queue);
  call->StartCall();
  Answer answer;
  grpc::ByteBuffer response;
  call->Finish(&response, &answer.status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  std::vector<grpc::Slice> slices;
  if (response.Valid() && response.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) {
      answer.bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
  }
  return answer;
}
Answer Call(const WorkerServer& server, const std::string& method) {
  return Call(server.address().ToString(), method);
}

// A path in a directory of this user alone, which goes with it.
struct SocketPath {
  SocketPath() {
    char name[] = "/tmp/muster-server-XXXXXX";
    EXPECT_NE(mkdtemp(name), nullptr);
    directory = name;
    path = directory + "/w0.sock";
  }
  ~SocketPath() { std::filesystem::remove_all(directory); }

  std::string directory, path;
};

// grpc.health.v1.HealthCheckResponse.ServingStatus.
int HealthOf(const WorkerServer& server) {
  const Answer answer = Call(server, "/grpc.health.v1.Health/Check");
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  return answer.bytes.size() == 2 ? answer.bytes[1] : 0;
}

TEST(WorkerServer, AnswersHealthChecksWithWhatIsReported) {
  ASSERT_OK_AND_ASSIGN(const auto server, WorkerServer::Start({.host = "127.0.0.1"}, {}));
  HealthReporter health(HealthReporter::Options{});
  health.Attach(server->health());
  EXPECT_EQ(HealthOf(*server), 2) << "NOT_SERVING";
  health.EpochActivated(ReplicaIndex(0), Epoch(1));
  EXPECT_EQ(HealthOf(*server), 1) << "SERVING";
  health.EpochEnded(ReplicaIndex(0), Epoch(1));
  EXPECT_EQ(HealthOf(*server), 2) << "NOT_SERVING";
}

TEST(WorkerServer, AnswersReflection) {
  ASSERT_OK_AND_ASSIGN(const auto server, WorkerServer::Start({.host = "127.0.0.1"}, {}));
  const Answer answer =
      Call(*server, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(Call(*server, "/muster.v1.Nothing/AtAll").status.error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST(WorkerServer, APortThatIsTakenIsExplained) {
  ASSERT_OK_AND_ASSIGN(const auto server, WorkerServer::Start({.host = "127.0.0.1"}, {}));
  EXPECT_STATUS(
      WorkerServer::Start(server->address(), {}), absl::StatusCode::kUnavailable,
      absl::StrCat("cannot listen on ", server->address().ToString(), ": address in use"));
}

TEST(WorkerServer, StopFreesThePort) {
  ASSERT_OK_AND_ASSIGN(auto server, WorkerServer::Start({.host = "127.0.0.1"}, {}));
  const ListenAddress address = server->address();
  server->Stop(absl::ZeroDuration());
  server->Stop(absl::ZeroDuration());
  EXPECT_OK(WorkerServer::Start(address, {}));
}

TEST(WorkerServer, AnswersOnAUnixSocketAsOnItsPort) {
  const SocketPath socket;
  ASSERT_OK_AND_ASSIGN(const auto server,
                       WorkerServer::Start({.host = "127.0.0.1"}, {}, socket.path));
  constexpr char kMethod[] = "/grpc.health.v1.Health/Check";
  const Answer here = Call(UnixAddress(socket.path), kMethod);
  EXPECT_TRUE(here.status.ok()) << here.status.error_message();
  EXPECT_EQ(here.bytes, Call(*server, kMethod).bytes);
}

TEST(WorkerServer, StopRemovesItsUnixSocket) {
  const SocketPath socket;
  ASSERT_OK_AND_ASSIGN(auto server, WorkerServer::Start({.host = "127.0.0.1"}, {}, socket.path));
  ASSERT_EQ(access(socket.path.c_str(), F_OK), 0);
  server->Stop(absl::ZeroDuration());
  EXPECT_NE(access(socket.path.c_str(), F_OK), 0);
  EXPECT_OK(WorkerServer::Start({.host = "127.0.0.1"}, {}, socket.path));
}

TEST(WorkerServer, AUnixSocketOfAnotherServerIsRefusedAndGoesOnToWork) {
  const SocketPath socket;
  ASSERT_OK_AND_ASSIGN(const auto server,
                       WorkerServer::Start({.host = "127.0.0.1"}, {}, socket.path));
  EXPECT_STATUS(WorkerServer::Start({.host = "127.0.0.1"}, {}, socket.path),
                absl::StatusCode::kUnavailable, "another process listens there");
  EXPECT_TRUE(Call(UnixAddress(socket.path), "/grpc.health.v1.Health/Check").status.ok());
}

TEST(WorkerServer, AUnixSocketThatOthersCouldReachIsRefused) {
  const SocketPath socket;
  ASSERT_EQ(chmod(socket.directory.c_str(), 0755), 0);
  EXPECT_STATUS(WorkerServer::Start({.host = "127.0.0.1"}, {}, socket.path),
                absl::StatusCode::kFailedPrecondition, "has mode 0755, and must have 0700");
}

}  // namespace
}  // namespace muster
