#include "coordinator/options.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/test_certificates.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

using Parsed = absl::StatusOr<std::optional<CoordinatorOptions>>;

Parsed ParseWords(std::vector<const char*> words, std::ostream& help) {
  words.insert(words.begin(), "muster-coordinator");
  return ParseOptions(static_cast<int>(words.size()), words.data(), help);
}

Parsed Parse(std::vector<const char*> words) {
  std::ostringstream help;
  return ParseWords(std::move(words), help);
}

bool IsOneLine(const absl::Status& status) {
  return status.message().find('\n') == absl::string_view::npos;
}

TEST(CoordinatorOptions, HaveTheirDefaults) {
  ASSERT_OK_AND_ASSIGN(const auto options, Parse({}));
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->listen.ToString(), "127.0.0.1:7600");
  EXPECT_EQ(options->config, ParallelConfig());
  EXPECT_EQ(options->lease, absl::Milliseconds(1500));
  EXPECT_EQ(options->phase_timeout, absl::Minutes(1));
  EXPECT_EQ(options->resize_range, (CpRange{.min = 1, .max = 2}));
  EXPECT_EQ(options->port_file, "");
  EXPECT_EQ(options->log_level, "info");
  EXPECT_FALSE(options->die_with_parent);
  EXPECT_FALSE(options->insecure);
}

TEST(CoordinatorOptions, TheResizeRangeIsHalfToDoubleUnlessItIsGiven) {
  ASSERT_OK_AND_ASSIGN(const auto automatic, Parse({"--cp", "4"}));
  EXPECT_EQ(automatic->resize_range, (CpRange{.min = 2, .max = 8}));
  ASSERT_OK_AND_ASSIGN(const auto given, Parse({"--cp", "4", "--resize-range", "1:4"}));
  EXPECT_EQ(given->resize_range, (CpRange{.min = 1, .max = 4}));
  for (const char* bad : {"", "4", "0:4", "5:8", "1:3", "1:1025", "a:8", "1:8:2", "1:"}) {
    const absl::Status refused = Parse({"--cp", "4", "--resize-range", bad}).status();
    EXPECT_STATUS(refused, kInvalid, "with MIN from 1 to 4 (--cp) and MAX from 4 to 1024");
    EXPECT_TRUE(IsOneLine(refused));
  }
}

TEST(CoordinatorOptions, ReplicasAreANumberOrFollowTheDomains) {
  ASSERT_OK_AND_ASSIGN(const auto number, Parse({"--replicas", "3"}));
  ASSERT_TRUE(number.has_value());
  EXPECT_EQ(number->config.replicas, 3);
  EXPECT_FALSE(number->replica_per_domain);
  ASSERT_OK_AND_ASSIGN(const auto automatic, Parse({"--replicas", "auto"}));
  ASSERT_TRUE(automatic.has_value());
  EXPECT_TRUE(automatic->replica_per_domain);
}

TEST(CoordinatorOptions, TakeEveryFlag) {
  ASSERT_OK_AND_ASSIGN(const auto options, Parse({"--listen",
                                                  "[::1]:0",
                                                  "--tp",
                                                  "3",
                                                  "--cp",
                                                  "4",
                                                  "--replicas",
                                                  "1024",
                                                  "--lease",
                                                  "250ms",
                                                  "--phase-timeout",
                                                  "2m",
                                                  "--port-file",
                                                  "run/port",
                                                  "--log-level",
                                                  "off",
                                                  "--log-format",
                                                  "json",
                                                  "--die-with-parent",
                                                  "--insecure"}));
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->listen.host, "::1");
  EXPECT_EQ(options->listen.port, 0);
  EXPECT_EQ(options->config, (ParallelConfig{.tp = 3, .cp = 4, .pp = 1, .replicas = 1024}));
  EXPECT_EQ(options->lease, absl::Milliseconds(250));
  EXPECT_EQ(options->phase_timeout, absl::Minutes(2));
  EXPECT_EQ(options->port_file, "run/port");
  EXPECT_EQ(options->log_level, "off");
  EXPECT_EQ(options->log_format, "json");
  EXPECT_TRUE(options->die_with_parent);
  EXPECT_TRUE(options->insecure);
}

TEST(CoordinatorOptions, HelpNamesEveryFlagAndAsksForNothingElse) {
  std::ostringstream help;
  ASSERT_OK_AND_ASSIGN(const auto options, ParseWords({"--help"}, help));
  EXPECT_FALSE(options.has_value());
  for (const char* text :
       {"--listen HOST:PORT=127.0.0.1:7600", "--tp", "--cp", "--replicas", "--lease TIME=1.5s",
        "--phase-timeout TIME=1m", "--port-file", "--log-level", "--log-format FORMAT=text",
        "--die-with-parent", "--insecure", "--tls DIR", "Exit status",
        "muster-worker --coordinator"}) {
    EXPECT_NE(help.str().find(text), std::string::npos) << text << "\n" << help.str();
  }
}

TEST(CoordinatorOptions, RefusalsNameFlagValueAndLimitInOneLine) {
  const struct {
    const char* flag;
    const char* value;
    const char* limit;
  } cases[] = {
      {"--tp", "0", "from 1 to 1024"},
      {"--cp", "1025", "from 1 to 1024"},
      {"--replicas", "two", "auto, or a whole number from 1 to 1024"},
      {"--listen", "7600", "HOST:PORT"},
      {"--listen", "127.0.0.1:65536", "to 65535"},
      {"--lease", "99ms", "from 100ms to 10m"},
      {"--lease", "5", "such as 1500ms or 30s"},
      {"--phase-timeout", "11m", "from 1s to 10m"},
      {"--phase-timeout", "inf", "from 1s to 10m"},
      {"--port-file", "", "the path of a file"},
      {"--log-level", "loud", "debug, info, warning, error, off"},
      {"--log-format", "xml", "text, json"},
  };
  for (const auto& c : cases) {
    const Parsed parsed = Parse({c.flag, c.value});
    EXPECT_STATUS(parsed, kInvalid, c.limit) << c.flag;
    EXPECT_STATUS(parsed, kInvalid, std::string(c.flag) + ": '" + c.value + "'") << c.flag;
    EXPECT_TRUE(IsOneLine(parsed.status())) << parsed.status();
  }
}

TEST(CoordinatorOptions, TheAdminPortIsThereWhenItIsAskedFor) {
  ASSERT_OK_AND_ASSIGN(const auto without, Parse({}));
  EXPECT_EQ(without->admin_listen, "");
  ASSERT_OK_AND_ASSIGN(const auto with, Parse({"--admin-listen", "[::]:9600"}));
  EXPECT_EQ(with->admin_listen, "[::]:9600");
  EXPECT_STATUS(Parse({"--admin-listen", "here"}), kInvalid, "--admin-listen: 'here'");
}

TEST(CoordinatorOptions, UnknownFlagsAreNamed) {
  const Parsed parsed = Parse({"--pp", "2"});
  EXPECT_STATUS(parsed, kInvalid, "--pp");
  EXPECT_STATUS(parsed, kInvalid, "--help");
  EXPECT_TRUE(IsOneLine(parsed.status())) << parsed.status();
}

TEST(CoordinatorOptions, PlaintextLeavesTheMachineOnlyWhenAllowed) {
  EXPECT_STATUS(Parse({"--listen", "0.0.0.0:7600"}), kInvalid, "--insecure");
  EXPECT_OK(Parse({"--listen", "0.0.0.0:7600", "--insecure"}));
}

TEST(CoordinatorOptions, TlsNeedsTheCertificateOfACoordinator) {
  const std::string own = ::testing::TempDir() + "/coordinator-tls";
  const std::string other = ::testing::TempDir() + "/worker-tls";
  const TestAuthority authority;
  authority.Issue({.uris = {"spiffe://lab/muster/coordinator"}}, own);
  authority.Issue({.uris = {"spiffe://lab/muster/worker/w0"}}, other);
  ASSERT_OK_AND_ASSIGN(const auto options,
                       Parse({"--tls", own.c_str(), "--listen", "0.0.0.0:7600"}));
  EXPECT_EQ(options->tls, own);
  EXPECT_STATUS(Parse({"--tls", other.c_str()}), kInvalid,
                "is that of spiffe://lab/muster/worker/w0; this daemon needs one of a coordinator");
  EXPECT_STATUS(Parse({"--tls", "/no/such/folder"}), kInvalid,
                "--tls: /no/such/folder/tls.crt: No such file or directory");
  EXPECT_STATUS(Parse({"--tls", own.c_str(), "--insecure"}), kInvalid, "give one of them");
}

}  // namespace
}  // namespace muster
