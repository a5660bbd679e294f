#include "client/certs/inspection.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "client/certs/authority.h"
#include "client/certs/inspection_text.h"
#include "client/certs/tls_folder.h"
#include "tests/support/status_matchers.h"

namespace muster::certs {
namespace {

class InspectionTest : public ::testing::Test {
 protected:
  InspectionTest() {
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    Issue("ca", "w0");
  }
  ~InspectionTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  // Of a new authority.
  void Issue(const std::string& authority, const std::string& worker) const {
    const auto ca = Authority::Create(Path(authority), "muster.local", now_);
    ASSERT_OK(ca);
    const auto credentials = ca->Issue({.role = "worker", .id = worker}, now_);
    ASSERT_OK(credentials);
    ASSERT_OK(WriteTlsFolder(Path(worker), *credentials));
  }
  Inspection Look(const std::string& name) const {
    auto inspection = Inspect(Path(name));
    EXPECT_OK(inspection);
    return *std::move(inspection);
  }
  std::string FirstProblem(const std::string& name, absl::Time now) const {
    const auto problems = Look(name).Problems(now);
    return problems.empty() ? "" : problems[0];
  }

  const absl::Time now_ = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()));
  std::string directory_ = ::testing::TempDir() + "/inspection_test.XXXXXX";
};

bool Has(const std::string& text, const std::string& part) { return absl::StrContains(text, part); }

TEST_F(InspectionTest, AFolderOfCredentialsFitsTogether) {
  EXPECT_TRUE(Look("w0").Problems(now_).empty());
  const std::string text = InspectionText(Look("w0"), now_);
  EXPECT_TRUE(Has(text, "role       worker w0\n")) << text;
  EXPECT_TRUE(Has(text, "identity   spiffe://muster.local/muster/worker/w0\n")) << text;
  EXPECT_TRUE(Has(text, "DNS names  worker.muster\n")) << text;
  EXPECT_TRUE(Has(text, ", 90 d 0 h left\n")) << text;
  EXPECT_TRUE(Has(text, "key        fits\n")) << text;
  EXPECT_TRUE(Has(text, "chain      fits ca.crt\n")) << text;
}

TEST_F(InspectionTest, AnAuthoritySaysOfWhat) {
  EXPECT_TRUE(Look("ca").Problems(now_).empty());
  EXPECT_TRUE(Has(InspectionText(Look("ca"), now_), "authority of muster.local"));
  EXPECT_TRUE(Has(InspectionText(Look("ca"), now_), ", 10.0 years left"));
}

TEST_F(InspectionTest, OfAFileNeitherKeyNorChainIsSaid) {
  const Inspection inspection = Look("w0/tls.crt");
  EXPECT_TRUE(inspection.Problems(now_).empty());
  EXPECT_FALSE(Has(InspectionText(inspection, now_), "key"));
  EXPECT_TRUE(InspectionJson(inspection, now_)["key_fits"].is_null());
}

TEST_F(InspectionTest, TimeIsSaidInPeoplesUnits) {
  const absl::Time later = now_ + absl::Hours(24 * 93 + 2);
  EXPECT_TRUE(Has(InspectionText(Look("w0"), later), ", EXPIRED 3 d 2 h ago"));
  EXPECT_TRUE(Has(FirstProblem("w0", later), "has expired"));
  EXPECT_TRUE(InspectionJson(Look("w0"), later)["expired"]);
  const absl::Time before = now_ - absl::Hours(2) - absl::Minutes(5);
  EXPECT_TRUE(Has(InspectionText(Look("w0"), before), ", begins in 2 h 0 min"));
  EXPECT_TRUE(Has(FirstProblem("w0", before), "is not valid yet"));
}

TEST_F(InspectionTest, AnotherAuthorityDoesNotFit) {
  Issue("ca2", "w1");
  std::filesystem::copy_file(Path("w1/ca.crt"), Path("w0/other"));
  std::filesystem::rename(Path("w0/other"), Path("w0/ca.crt"));
  EXPECT_TRUE(Has(FirstProblem("w0", now_), "has not signed the certificate"));
  EXPECT_FALSE(InspectionJson(Look("w0"), now_)["chain_fits"]);
  EXPECT_TRUE(Has(InspectionText(Look("w0"), now_), "chain      DOES NOT FIT"));
}

TEST_F(InspectionTest, AnotherKeyDoesNotFit) {
  Issue("ca2", "w1");
  std::filesystem::remove(Path("w0/tls.key"));
  EXPECT_TRUE(Has(FirstProblem("w0", now_), "cannot read"));
  std::filesystem::copy_file(Path("w1/tls.key"), Path("w0/tls.key"));
  EXPECT_TRUE(Has(FirstProblem("w0", now_), "is the key of another certificate"));
}

TEST_F(InspectionTest, JsonHasEveryFact) {
  const auto json = InspectionJson(Look("w0"), now_);
  EXPECT_EQ(json["role"], "worker");
  EXPECT_EQ(json["id"], "w0");
  EXPECT_EQ(json["trust_domain"], "muster.local");
  EXPECT_EQ(json["left_s"], 90 * 86400);
  EXPECT_EQ(json["expired"], false);
  EXPECT_EQ(json["key_fits"], true);
  EXPECT_EQ(json["chain_fits"], true);
  EXPECT_TRUE(json["problems"].empty());
}

TEST_F(InspectionTest, WhatIsNoCertificateIsRefused) {
  std::filesystem::create_directory(Path("empty"));
  EXPECT_TRUE(testing::HasStatus(Inspect(Path("empty")).status(), absl::StatusCode::kNotFound,
                                 "neither tls.crt nor ca.crt"));
  EXPECT_TRUE(testing::HasStatus(Inspect(Path("none")).status(), absl::StatusCode::kNotFound,
                                 "cannot read"));
  EXPECT_TRUE(testing::HasStatus(Inspect(Path("w0/tls.key")).status(),
                                 absl::StatusCode::kInvalidArgument, "holds no certificate"));
}

}  // namespace
}  // namespace muster::certs
