#include "base/tls_news.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/test_certificates.h"

namespace muster {
namespace {

constexpr char kWorker[] = "spiffe://lab/muster/worker/w0";

std::string Line(const std::optional<std::string>& news) { return news.value_or("none"); }
void ExpectPart(const std::string& line, const std::string& part) {
  EXPECT_NE(line.find(part), std::string::npos) << line;
}

class TlsNewsTest : public ::testing::Test {
 protected:
  TlsNewsTest() { authority_.Issue({.uris = {kWorker}}, directory_); }

  const std::string directory_ = ::testing::TempDir() + "/tls-news";
  const TestAuthority authority_;
  TlsNews news_{directory_, {"lab", TlsRole::kWorker, "w0"}};
};

TEST_F(TlsNewsTest, ThereIsNoneWhereARenewedCertificateIsInPlace) {
  EXPECT_EQ(Line(news_.Look()), "none");
  authority_.Issue({.uris = {kWorker}}, directory_);
  EXPECT_EQ(Line(news_.Look()), "none");
}

TEST_F(TlsNewsTest, WhatIsOfNoUseIsSaidOnceAndThatItIsOfUseAgain) {
  authority_.Issue({.uris = {kWorker}, .ends = -absl::Seconds(1)}, directory_);
  ExpectPart(Line(news_.Look()),
             "new connections fail: " + directory_ + "/tls.crt: the certificate expired at");
  EXPECT_EQ(Line(news_.Look()), "none");
  std::filesystem::remove(directory_ + "/tls.key");
  ExpectPart(Line(news_.Look()), "tls.key: No such file");
  authority_.Issue({.uris = {kWorker}}, directory_);
  EXPECT_EQ(Line(news_.Look()), "the files in " + directory_ + " are of use again");
  EXPECT_EQ(Line(news_.Look()), "none");
}

TEST_F(TlsNewsTest, SomebodyElsesCertificateIsNamed) {
  authority_.Issue({.uris = {"spiffe://lab/muster/worker/w1"}}, directory_);
  ExpectPart(Line(news_.Look()),
             "is that of spiffe://lab/muster/worker/w1 now, and this process "
             "is spiffe://lab/muster/worker/w0");
}

}  // namespace
}  // namespace muster
