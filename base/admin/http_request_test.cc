#include "base/admin/http_request.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace muster {
namespace {

TEST(EndOfHead, IsBehindTheEmptyLine) {
  EXPECT_EQ(EndOfHead("GET / HTTP/1.0\r\n"), std::nullopt);
  EXPECT_EQ(EndOfHead("GET / HTTP/1.0\r\n\r\nGET"), 18u);
}

TEST(ParseHead, TakesPathAndQueryAsTheyWereSent) {
  const HttpRequest request =
      ParseHead("GET /readyz?a=%20b&verbose HTTP/1.1\r\nHost: h\r\n\r\n", HttpLimits());
  EXPECT_EQ(request.refusal, 0);
  EXPECT_EQ(request.request.path, "/readyz");
  EXPECT_EQ(request.request.query, "a=%20b&verbose");
  EXPECT_TRUE(request.keep_alive);
  EXPECT_FALSE(request.head);
}

TEST(ParseHead, FollowsTheCallersWishToClose) {
  EXPECT_FALSE(
      ParseHead("GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, Close\r\n\r\n", {}).keep_alive);
  EXPECT_FALSE(ParseHead("GET / HTTP/1.0\r\n\r\n", {}).keep_alive);
}

TEST(ParseHead, RefusesOrUnderstandsWhateverBytesCome) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const std::string sound = "GET /readyz?verbose HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n";
  for (int round = 0; round < 20000; ++round) {
    std::string head = sound;
    for (int change = 0; change < 3; ++change) {
      head[random() % (head.size() - 4)] = static_cast<char>(random());
    }
    const HttpRequest request = ParseHead(head, {});
    if (request.refusal != 0) continue;
    EXPECT_EQ(request.request.path.substr(0, 1), "/") << head;
    EXPECT_EQ(request.request.path.find_first_of(" \r\n\t"), std::string::npos) << head;
  }
}

TEST(AdminRequest, AsksForWhatItsQueryNames) {
  const auto asks = [](const char* query) { return AdminRequest{.query = query}.Asks("verbose"); };
  for (const char* query : {"verbose", "verbose=", "a=b&verbose=1"}) EXPECT_TRUE(asks(query));
  for (const char* query : {"", "verbosely", "a=verbose", "verbose=0", "verbose=false"}) {
    EXPECT_FALSE(asks(query)) << query;
  }
}

}  // namespace
}  // namespace muster
