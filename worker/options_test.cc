#include "worker/options.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/test_certificates.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

using Parsed = absl::StatusOr<std::optional<WorkerOptions>>;

Parsed ParseWords(std::vector<const char*> words, std::ostream& help) {
  words.insert(words.begin(), "muster-worker");
  return ParseOptions(static_cast<int>(words.size()), words.data(), help);
}

// With the flags that must be there.
Parsed Parse(std::vector<const char*> words) {
  words.insert(words.end(), {"--coordinator", "127.0.0.1:7600", "--model", "/models/llama"});
  std::ostringstream help;
  return ParseWords(std::move(words), help);
}

bool IsOneLine(const absl::Status& status) {
  return status.message().find('\n') == absl::string_view::npos;
}

TEST(WorkerOptions, HaveTheirDefaults) {
  ASSERT_OK_AND_ASSIGN(const auto options, Parse({}));
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->coordinator, "127.0.0.1:7600");
  EXPECT_EQ(options->model, "/models/llama");
  EXPECT_EQ(options->listen, "127.0.0.1:0");
  EXPECT_EQ(options->dtype, "auto");
  EXPECT_EQ(options->load_format, "auto");
  EXPECT_EQ(options->device, "auto");
  EXPECT_EQ(options->memory_fraction, 0.9);
  EXPECT_EQ(options->oversubscribe, 1);
  EXPECT_EQ(options->kv_memory, std::nullopt);
  EXPECT_EQ(options->client_lease, absl::Minutes(10));
  EXPECT_EQ(options->drain_timeout, absl::Seconds(30));
  EXPECT_EQ(options->unix_socket, "");
  EXPECT_GE(options->threads, 1);
  EXPECT_TRUE(options->fusion);
  EXPECT_TRUE(options->graphs);
  EXPECT_FALSE(options->fault.has_value());
  EXPECT_FALSE(options->die_with_parent);
  EXPECT_FALSE(options->worker_id.empty());
  EXPECT_EQ(options->worker_id.rfind(options->domain + "-", 0), 0u) << "both begin with the host";
}

TEST(WorkerOptions, TakeEveryFlag) {
  ASSERT_OK_AND_ASSIGN(const auto options, Parse({"--listen",
                                                  "localhost:7700",
                                                  "--worker-id",
                                                  "gpu-3.a_b",
                                                  "--domain",
                                                  "rack-1",
                                                  "--dtype",
                                                  "bfloat16",
                                                  "--threads",
                                                  "12",
                                                  "--kv-memory",
                                                  "2GiB",
                                                  "--load-format",
                                                  "dummy",
                                                  "--device",
                                                  "cuda:GPU-0123abcd",
                                                  "--device-ordinal",
                                                  "5",
                                                  "--memory-fraction",
                                                  "0.5",
                                                  "--oversubscribe",
                                                  "4",
                                                  "--no-fusion",
                                                  "--no-graphs",
                                                  "--fault",
                                                  "kill@warmup/exchange",
                                                  "--log-level",
                                                  "debug",
                                                  "--log-format",
                                                  "json",
                                                  "--die-with-parent",
                                                  "--client-lease",
                                                  "90s",
                                                  "--drain-timeout",
                                                  "0s",
                                                  "--unix-socket",
                                                  "/run/muster/w0.sock"}));
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->listen, "localhost:7700");
  EXPECT_EQ(options->worker_id, "gpu-3.a_b");
  EXPECT_EQ(options->dtype, "bfloat16");
  EXPECT_EQ(options->threads, 12);
  EXPECT_EQ(options->kv_memory, uint64_t{2} << 30);
  EXPECT_EQ(options->load_format, "dummy");
  EXPECT_EQ(options->device, "cuda:GPU-0123abcd");
  EXPECT_EQ(options->device_ordinal, DeviceOrdinal(5));
  EXPECT_EQ(options->memory_fraction, 0.5);
  EXPECT_EQ(options->oversubscribe, 4);
  EXPECT_FALSE(options->fusion);
  EXPECT_FALSE(options->graphs);
  EXPECT_EQ(options->fault, (Fault{Fault::Action::kKill, "warmup/exchange"}));
  EXPECT_EQ(options->log_level, "debug");
  EXPECT_EQ(options->log_format, "json");
  EXPECT_TRUE(options->die_with_parent);
  EXPECT_EQ(options->client_lease, absl::Seconds(90));
  EXPECT_EQ(options->drain_timeout, absl::ZeroDuration());
  EXPECT_EQ(options->unix_socket, "/run/muster/w0.sock");
  EXPECT_EQ(options->domain, "rack-1");
}

TEST(WorkerOptions, HelpNamesEveryFlagAndAsksForNothingElse) {
  std::ostringstream help;
  ASSERT_OK_AND_ASSIGN(const auto options, ParseWords({"--help"}, help));
  EXPECT_FALSE(options.has_value());
  for (const char* flag :
       {"--coordinator",    "--listen",          "--worker-id",       "--model",
        "--domain NAME",    "--dtype",           "--threads",         "--kv-memory",
        "--device-ordinal", "--no-fusion",       "--no-graphs",       "--fault",
        "--log-level",      "--log-format",      "--die-with-parent", "--insecure",
        "--tls DIR",        "--client-lease",    "--unix-socket",     "--load-format",
        "--device ",        "--memory-fraction", "--oversubscribe",   "--drain-timeout",
        "Exit status"}) {
    EXPECT_NE(help.str().find(flag), std::string::npos) << flag << "\n" << help.str();
  }
}

TEST(WorkerOptions, SizesAreBytesOrBinaryUnits) {
  const std::pair<const char*, uint64_t> sizes[] = {{"4096", 4096},
                                                    {"4096B", 4096},
                                                    {"64KiB", uint64_t{64} << 10},
                                                    {"3 MiB", uint64_t{3} << 20},
                                                    {"16TiB", uint64_t{16} << 40}};
  for (const auto& [text, bytes] : sizes) {
    ASSERT_OK_AND_ASSIGN(const auto options, Parse({"--kv-memory", text}));
    EXPECT_EQ(options->kv_memory, bytes) << text;
  }
}

TEST(WorkerOptions, RefusalsNameFlagValueAndLimitInOneLine) {
  const std::string long_path = "/" + std::string(107, 'a');
  const struct {
    const char* flag;
    const char* value;
    const char* limit;
  } cases[] = {
      {"--threads", "0", "from 1 to 1024"},
      {"--threads", "many", "from 1 to 1024"},
      {"--device-ordinal", "1024", "from 0 to 1023"},
      {"--kv-memory", "12XB", "from 4KiB to 16TiB"},
      {"--kv-memory", "0", "from 4KiB to 16TiB"},
      {"--kv-memory", "17TiB", "from 4KiB to 16TiB"},
      {"--kv-memory", "99999999999999TiB", "from 4KiB to 16TiB"},
      {"--dtype", "int8", "auto, float32, bfloat16, float16"},
      {"--load-format", "pt", "auto, safetensors, dummy"},
      {"--device", "gpu", "auto, cpu, cuda, cuda:ORDINAL or cuda:UUID"},
      {"--device", "cuda:", "auto, cpu, cuda, cuda:ORDINAL or cuda:UUID"},
      {"--device", "cuda:1024", "auto, cpu, cuda, cuda:ORDINAL or cuda:UUID"},
      {"--memory-fraction", "0.04", "from 0.05 to 0.98"},
      {"--memory-fraction", "0.99", "from 0.05 to 0.98"},
      {"--memory-fraction", "nan", "from 0.05 to 0.98"},
      {"--memory-fraction", "90%", "from 0.05 to 0.98"},
      {"--oversubscribe", "0", "from 1 to 16"},
      {"--oversubscribe", "17", "from 1 to 16"},
      {"--log-level", "loud", "debug, info, warning, error, off"},
      {"--log-format", "xml", "text, json"},
      {"--listen", "nowhere", "HOST:PORT"},
      {"--listen", "127.0.0.1:70000", "to 65535"},
      {"--worker-id", "a b", "1 to 128"},
      {"--worker-id", "", "1 to 128"},
      {"--domain", "a/b", "1 to 128"},
      {"--client-lease", "999ms", "from 1s to 24h"},
      {"--client-lease", "25h", "from 1s to 24h"},
      {"--client-lease", "10", "from 1s to 24h"},
      {"--drain-timeout", "-1s", "from 0 to 1h"},
      {"--drain-timeout", "61m", "from 0 to 1h"},
      {"--unix-socket", "w0.sock", "is not the absolute path of a socket"},
      {"--unix-socket", long_path.c_str(), "has 108 bytes; it can have 107"},
      {"--fault", "kill@lunch", "warmup/exchange"},
      {"--fault", "maim@load", "kill@PHASE or stop@PHASE"},
  };
  for (const auto& c : cases) {
    const Parsed parsed = Parse({c.flag, c.value});
    EXPECT_STATUS(parsed, kInvalid, c.limit) << c.flag;
    EXPECT_STATUS(parsed, kInvalid, std::string(c.flag) + ": '" + c.value + "'") << c.flag;
    EXPECT_TRUE(IsOneLine(parsed.status())) << parsed.status();
  }
}

TEST(WorkerOptions, UnknownFlagIsNamed) {
  const Parsed parsed = Parse({"--trheads", "3"});
  EXPECT_STATUS(parsed, kInvalid, "--trheads");
  EXPECT_STATUS(parsed, kInvalid, "--help");
  EXPECT_TRUE(IsOneLine(parsed.status())) << parsed.status();
}

TEST(WorkerOptions, FlagThatMustBeThereIsNamed) {
  std::ostringstream help;
  EXPECT_STATUS(ParseWords({"--model", "/m"}, help), kInvalid, "--coordinator");
  EXPECT_STATUS(ParseWords({"--coordinator", "127.0.0.1:1"}, help), kInvalid, "--model");
}

TEST(WorkerOptions, CoordinatorNeedsAPort) {
  std::ostringstream help;
  for (const char* value : {"127.0.0.1", "127.0.0.1:0", ":7600", "127.0.0.1:port"}) {
    EXPECT_STATUS(ParseWords({"--model", "/m", "--coordinator", value}, help), kInvalid,
                  "--coordinator: '" + std::string(value) + "'");
  }
}

TEST(WorkerOptions, PlaintextLeavesTheMachineOnlyWhenAllowed) {
  EXPECT_STATUS(Parse({"--listen", "0.0.0.0:7700"}), kInvalid, "--insecure");
  EXPECT_OK(Parse({"--listen", "0.0.0.0:7700", "--insecure"}));
}

TEST(WorkerOptions, TheAdminPortIsThereWhenItIsAskedFor) {
  ASSERT_OK_AND_ASSIGN(const auto without, Parse({}));
  EXPECT_EQ(without->admin_listen, "");
  // Plain HTTP and read-only by design: probes come from other machines.
  ASSERT_OK_AND_ASSIGN(const auto with, Parse({"--admin-listen", "0.0.0.0:9600"}));
  EXPECT_EQ(with->admin_listen, "0.0.0.0:9600");
  EXPECT_STATUS(Parse({"--admin-listen", "9600"}), kInvalid, "--admin-listen: '9600'");
}

TEST(WorkerOptions, AStallIsALengthOfTime) {
  ASSERT_OK_AND_ASSIGN(const auto options, Parse({"--stall-timeout", "1500ms"}));
  EXPECT_EQ(options->stall_timeout, absl::Milliseconds(1500));
  for (const char* bad : {"", "0s", "-1s", "5", "2h", "soon"}) {
    EXPECT_STATUS(Parse({"--stall-timeout", bad}), kInvalid, "--stall-timeout: ");
  }
}

class WorkerTlsOptions : public ::testing::Test {
 protected:
  WorkerTlsOptions() {
    authority_.Issue({.uris = {"spiffe://lab/muster/worker/gpu-3"}}, worker_);
    authority_.Issue({.uris = {"spiffe://lab/muster/scheduler"}}, scheduler_);
  }

  const TestAuthority authority_;
  const std::string worker_ = ::testing::TempDir() + "/worker-tls";
  const std::string scheduler_ = ::testing::TempDir() + "/scheduler-tls";
};

TEST_F(WorkerTlsOptions, TheCertificateSaysWhoTheWorkerIs) {
  ASSERT_OK_AND_ASSIGN(const auto options, Parse({"--tls", worker_.c_str()}));
  EXPECT_EQ(options->worker_id, "gpu-3");
  EXPECT_EQ(options->tls, worker_);
  EXPECT_OK(Parse({"--tls", worker_.c_str(), "--worker-id", "gpu-3"}));
  const Parsed other = Parse({"--tls", worker_.c_str(), "--worker-id", "gpu-4"});
  EXPECT_STATUS(other, kInvalid, "--worker-id: 'gpu-4' is not 'gpu-3', to whom the certificate in");
  EXPECT_TRUE(IsOneLine(other.status())) << other.status();
}

TEST_F(WorkerTlsOptions, EncryptedTrafficMayLeaveTheMachine) {
  EXPECT_OK(Parse({"--tls", worker_.c_str(), "--listen", "0.0.0.0:7700"}));
}

TEST_F(WorkerTlsOptions, WhatCannotServeAWorkerIsRefused) {
  EXPECT_STATUS(Parse({"--tls", scheduler_.c_str()}), kInvalid,
                "is that of spiffe://lab/muster/scheduler; this daemon needs one of a worker");
  EXPECT_STATUS(Parse({"--tls", "/no/such/folder"}), kInvalid,
                "--tls: /no/such/folder/tls.crt: No such file or directory");
  EXPECT_STATUS(Parse({"--tls", ""}), kInvalid, "--tls: '' is not the path of a directory");
  EXPECT_STATUS(Parse({"--tls", worker_.c_str(), "--insecure"}), kInvalid, "give one of them");
}

}  // namespace
}  // namespace muster
