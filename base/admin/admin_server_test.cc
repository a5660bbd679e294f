#include "base/admin/admin_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/admin/test_caller.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr absl::string_view kGet = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
constexpr absl::string_view kLastGet =
    "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

AdminRoutes Routes() {
  return {{"/livez", [](const AdminRequest&) { return AdminResponse{.body = "ok\n"}; }},
          {"/readyz",
           [](const AdminRequest& request) {
             return AdminResponse{.status = 503,
                                  .body = request.Asks("verbose") ? "why\n" : "no\n"};
           }},
          {"/large",
           [](const AdminRequest&) { return AdminResponse{.body = std::string(64 << 20, 'x')}; }}};
}

std::unique_ptr<AdminServer> StartServer(const AdminLimits& limits = {}) {
  auto server = AdminServer::Start({.host = "127.0.0.1"}, Routes(), limits);
  EXPECT_OK(server.status());
  return *std::move(server);
}

// The status line and all that follows, until the server closes.
std::string Ask(const AdminServer& server, absl::string_view bytes) {
  TestCaller caller(server.address());
  caller.Send(bytes);
  return caller.ReadAll();
}

TEST(AdminServer, AnswersARoute) {
  const auto server = StartServer();
  const std::string answer = Ask(*server, kLastGet);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\nok\n"));
}

TEST(AdminServer, SaysThatNothingMayKeepSniffOrFrameTheAnswer) {
  const auto server = StartServer();
  const std::string answer = Ask(*server, kLastGet);
  EXPECT_THAT(answer, HasSubstr("\r\nX-Content-Type-Options: nosniff\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nContent-Security-Policy: default-src 'none'"));
  EXPECT_THAT(answer, HasSubstr("\r\nCache-Control: no-store\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nX-Frame-Options: DENY\r\n"));
}

TEST(AdminServer, AnswersHeadWithTheLengthAndWithoutTheBody) {
  const auto server = StartServer();
  const std::string answer = Ask(*server, "HEAD /livez HTTP/1.0\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("\r\nContent-Length: 3\r\n"));
  EXPECT_THAT(answer, Not(HasSubstr("ok")));
}

TEST(AdminServer, HandsTheQueryToTheRoute) {
  const auto server = StartServer();
  const std::string answer = Ask(*server, "GET /readyz?verbose HTTP/1.0\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 Service Unavailable\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\nwhy\n"));
}

TEST(AdminServer, AnswersSeveralRequestsOfOneConnectionInOrder) {
  const auto server = StartServer();
  const std::string answer =
      Ask(*server, absl::StrCat(kGet, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", kLastGet));
  EXPECT_EQ(CountOf(answer, "HTTP/1.1 200 OK"), 2);
  EXPECT_EQ(CountOf(answer, "HTTP/1.1 503 "), 1);
  EXPECT_LT(answer.find("HTTP/1.1 200"), answer.find("HTTP/1.1 503"));
}

TEST(AdminServer, ClosesAConnectionThatHasAskedOftenEnough) {
  AdminLimits limits;
  limits.connection.requests = 3;
  const auto server = StartServer(limits);
  const std::string answer = Ask(*server, absl::StrCat(kGet, kGet, kGet, kGet, kGet));
  EXPECT_EQ(CountOf(answer, "HTTP/1.1 200 OK"), 3);
}

TEST(AdminServer, RefusesWhatIsNoRequestForAKnownPath) {
  const auto server = StartServer();
  const struct {
    std::string request;
    int status;
  } cases[] = {
      {"GET / HTTP/1.0\r\n\r\n", 404},
      {"GET /livez/ HTTP/1.0\r\n\r\n", 404},
      {"GET /../../etc/passwd HTTP/1.0\r\n\r\n", 404},
      {"GET /livez/../../../etc/passwd HTTP/1.0\r\n\r\n", 404},
      {"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.0\r\n\r\n", 404},
      {"GET //etc/passwd HTTP/1.0\r\n\r\n", 404},
      {"GET etc/passwd HTTP/1.0\r\n\r\n", 400},
      {"GET http://elsewhere/livez HTTP/1.0\r\n\r\n", 400},
      {"GET /livez\r\n\r\n", 400},
      {"GET  /livez HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /li\x01vez HTTP/1.0\r\n\r\n", 400},
      {"GET /livez HTTP/1.1\r\n\r\n", 400},
      {"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
      {"GET /livez HTTP/1.0\r\n folded: x\r\n\r\n", 400},
      {"GET /livez HTTP/1.0\r\nname : x\r\n\r\n", 400},
      {"GET /livez HTTP/1.0\r\nname: a\rb\r\n\r\n", 400},
      {"GET /livez HTTP/2.0\r\n\r\n", 505},
      {"POST /livez HTTP/1.0\r\n\r\n", 405},
      {"DELETE /livez HTTP/1.0\r\n\r\n", 405},
      {"GET /livez HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", 413},
      {"GET /livez HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413},
      {absl::StrCat("GET /", std::string(2000, 'a'), " HTTP/1.0\r\n\r\n"), 414},
      {absl::StrCat("GET /livez HTTP/1.0\r\nname: ", std::string(9000, 'a'), "\r\n\r\n"), 431},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(Ask(*server, c.request), StartsWith(absl::StrCat("HTTP/1.1 ", c.status, " ")))
        << c.request.substr(0, 100);
  }
}

TEST(AdminServer, RefusesMoreFieldsThanItKeepsTrackOf) {
  const auto server = StartServer();
  std::string request = "GET /livez HTTP/1.0\r\n";
  for (int i = 0; i < 65; ++i) absl::StrAppend(&request, "f", i, ": x\r\n");
  EXPECT_THAT(Ask(*server, absl::StrCat(request, "\r\n")), StartsWith("HTTP/1.1 431 "));
}

TEST(AdminServer, NamesTheMethodsThatItTakes) {
  const auto server = StartServer();
  EXPECT_THAT(Ask(*server, "POST /livez HTTP/1.0\r\n\r\n"), HasSubstr("\r\nAllow: GET, HEAD\r\n"));
}

TEST(AdminServer, PutsNothingOfARequestIntoAnAnswer) {
  const auto server = StartServer();
  const std::string answer = Ask(*server,
                                 "GET /x%0d%0aSet-Cookie:%20a=1?y%0d%0aInjected:%201 HTTP/1.0\r\n"
                                 "X-Mark: marked\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(answer, Not(HasSubstr("Cookie")));
  EXPECT_THAT(answer, Not(HasSubstr("Injected")));
  EXPECT_THAT(answer, Not(HasSubstr("marked")));
}

TEST(AdminServer, StopsReadingAHeaderThatNeverEnds) {
  const auto server = StartServer();
  TestCaller caller(server->address());
  caller.Send("GET /livez HTTP/1.1\r\nX: ");
  const std::string megabyte(1 << 20, 'a');
  int sent = 0;
  while (sent < 100 && caller.TrySend(megabyte)) ++sent;
  EXPECT_LT(sent, 100);
}

TEST(AdminServer, EndsAConnectionThatSendsItsRequestByteByByte) {
  AdminLimits limits;
  limits.connection.request = absl::Milliseconds(200);
  const auto server = StartServer(limits);
  TestCaller caller(server->address());
  int sent = 0;
  // Each byte is progress, and none of it buys time.
  while (sent < 1'000'000 && caller.TrySend("G") && !caller.ClosedWithin(absl::Milliseconds(1))) {
    ++sent;
  }
  EXPECT_LT(sent, 8192);
  EXPECT_THAT(Ask(*server, kLastGet), StartsWith("HTTP/1.1 200 OK"));
}

TEST(AdminServer, EndsAConnectionWhoseCallerDoesNotReadItsAnswer) {
  AdminLimits limits;
  limits.connection.answer = absl::Milliseconds(100);
  const auto server = StartServer(limits);
  TestCaller caller(server->address());
  caller.Send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(caller.ResetWithin(absl::Seconds(20)));
}

TEST(AdminServer, EndsAnIdleConnection) {
  AdminLimits limits;
  limits.connection.idle = absl::Milliseconds(50);
  const auto server = StartServer(limits);
  TestCaller caller(server->address());
  caller.Send(kGet);
  EXPECT_EQ(CountOf(caller.ReadAll(), "HTTP/1.1 200 OK"), 1);
}

TEST(AdminServer, AnswersAProbeWhileAThousandConnectionsAreIdle) {
  const auto server = StartServer();
  std::vector<std::unique_ptr<TestCaller>> idle;
  for (int i = 0; i < 1000; ++i) {
    idle.push_back(std::make_unique<TestCaller>(server->address()));
    if (i % 2 == 0) idle.back()->Send("GET /li");
  }
  const absl::Time begun = absl::Now();
  EXPECT_THAT(Ask(*server, kLastGet), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_LT(absl::Now() - begun, absl::Seconds(1));
}

TEST(AdminServer, ServesAnswersOfAnySizeWhole) {
  const auto server = StartServer();
  const std::string answer = Ask(*server, "GET /large HTTP/1.0\r\n\r\n");
  EXPECT_EQ(answer.size() - answer.find("\r\n\r\n") - 4, size_t{64} << 20);
}

TEST(AdminServer, SaysWhyItCannotListen) {
  const auto server = StartServer();
  const auto second = AdminServer::Start(server->address(), Routes());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr("address in use"));
}

TEST(AdminServer, ClosesWhatIsOpenWhenItEnds) {
  auto server = StartServer();
  TestCaller caller(server->address());
  caller.Send("GET /li");
  server.reset();
  EXPECT_EQ(caller.ReadAll(), "");
}

}  // namespace
}  // namespace muster
