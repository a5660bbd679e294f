#include "base/flags.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
// One that only the program itself refuses.
constexpr char kRefusedAddress[] = "127.0.0.1:1";

// What a daemon's flags can be, of every kind.
struct Flags {
  std::string model;
  std::string listen = "127.0.0.1:0";
  std::string wait = "30s";
  std::string dtype = "auto";
  int threads = 1;
  bool insecure = false;
  std::string log_level = "info";
  std::string log_format = "text";
  bool die_with_parent = false;
};

constexpr const char* kVariables[] = {
    "MUSTER_MODEL",           "MUSTER_LISTEN",   "MUSTER_WAIT",      "MUSTER_DTYPE",
    "MUSTER_THREADS",         "MUSTER_INSECURE", "MUSTER_LOG_LEVEL", "MUSTER_LOG_FORMAT",
    "MUSTER_DIE_WITH_PARENT", "MUSTER_CONFIG"};

void AddTo(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.model, "Model")->required()->check(PathOf("directory"));
  app.add_option("--listen", flags.listen, "Address")
      ->check(AddressToListen())
      ->capture_default_str();
  app.add_option("--wait", flags.wait, "Time")
      ->check(DurationBetween(absl::Seconds(1), absl::Minutes(5)));
  app.add_option("--dtype", flags.dtype, "Type")->check(OneOf({"auto", "float32"}));
  app.add_option("--threads", flags.threads, "Threads")->check(WholeNumber(1, 64));
  app.add_flag("--insecure", flags.insecure, "Plaintext");
  AddProcessFlags(app, flags.log_level, flags.log_format, flags.die_with_parent);
}

// False where ParseFlags wrote to `out` and nothing is to be run.
absl::StatusOr<bool> ParseInto(Flags& flags, std::vector<std::string> words, std::ostream& out) {
  CLI::App app("An example.", "muster-example");
  AddTo(app, flags);
  std::vector<const char*> argv = {"muster-example"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  return ParseFlags(app, static_cast<int>(argv.size()), argv.data(), out, [&flags] {
    return flags.listen == kRefusedAddress ? absl::InvalidArgumentError("refused by the program")
                                           : absl::OkStatus();
  });
}

class FlagsTest : public ::testing::Test {
 protected:
  FlagsTest() { ClearEnvironment(); }
  ~FlagsTest() override {
    ClearEnvironment();
    unlink(path_.c_str());
  }

  static void ClearEnvironment() {
    for (const char* variable : kVariables) unsetenv(variable);
  }

  // With the model, which must be there, unless `words` leave it to another source.
  absl::StatusOr<Flags> Parse(std::vector<std::string> words, bool with_model = true) {
    if (with_model) words.insert(words.end(), {"--model", "m"});
    Flags flags;
    std::ostringstream help;
    const absl::StatusOr<bool> parsed = ParseInto(flags, words, help);
    if (!parsed.ok()) return parsed.status();
    EXPECT_TRUE(*parsed);
    return flags;
  }

  void SetVariable(const char* name, const std::string& value) {
    ASSERT_EQ(setenv(name, value.c_str(), 1), 0);
  }

  // The words that name a file with these lines.
  std::vector<std::string> File(std::vector<std::string> lines) {
    std::ofstream(path_) << absl::StrJoin(lines, "\n") << "\n";
    return {"--config", path_};
  }

  const std::string path_ = absl::StrCat(::testing::TempDir(), "/flags_test.", getpid());
};

bool IsOneLine(const absl::Status& status) {
  return status.message().find('\n') == absl::string_view::npos;
}

void ExpectNoDefault(const Flags& flags) {
  EXPECT_EQ(flags.model, "/models/a b");
  EXPECT_EQ(flags.listen, "[::1]:7600");
  EXPECT_EQ(flags.wait, "1500ms");
  EXPECT_EQ(flags.dtype, "float32");
  EXPECT_EQ(flags.threads, 12);
  EXPECT_TRUE(flags.insecure);
  EXPECT_EQ(flags.log_level, "debug");
  EXPECT_TRUE(flags.die_with_parent);
}

TEST_F(FlagsTest, EveryFlagStandsOnTheCommandLine) {
  ASSERT_OK_AND_ASSIGN(
      const Flags flags,
      Parse({"--model", "/models/a b", "--listen", "[::1]:7600", "--wait=1500ms", "--dtype",
             "float32", "--threads", "12", "--insecure", "--log-level=debug", "--die-with-parent"},
            false));
  ExpectNoDefault(flags);
}

TEST_F(FlagsTest, EveryFlagStandsInTheEnvironment) {
  SetVariable("MUSTER_MODEL", "/models/a b");
  SetVariable("MUSTER_LISTEN", "[::1]:7600");
  SetVariable("MUSTER_WAIT", "1500ms");
  SetVariable("MUSTER_DTYPE", "float32");
  SetVariable("MUSTER_THREADS", "12");
  SetVariable("MUSTER_INSECURE", "true");
  SetVariable("MUSTER_LOG_LEVEL", "debug");
  SetVariable("MUSTER_DIE_WITH_PARENT", "1");
  ASSERT_OK_AND_ASSIGN(const Flags flags, Parse({}, false));
  ExpectNoDefault(flags);
}

TEST_F(FlagsTest, EveryFlagStandsInAFileOfYaml) {
  ASSERT_OK_AND_ASSIGN(
      const Flags flags,
      Parse(File({"# a comment", "---", "model: /models/a b", "listen: '[::1]:7600'",
                  "wait:   1500ms  # a time", "dtype: \"float32\"", "threads: 12\r",
                  "insecure: true", "log-level: debug", "die-with-parent: yes"}),
            false));
  ExpectNoDefault(flags);
}

TEST_F(FlagsTest, EveryFlagStandsInAFileOfJson) {
  ASSERT_OK_AND_ASSIGN(
      const Flags flags,
      Parse(File({"{", R"(  "model": "/models/a b", "listen": "[::1]:7600",)",
                  "\t\"wait\": \"1500ms\",", R"("dtype":"float32","threads":12,)",
                  R"("insecure": true, "log-level": "debug", "die-with-parent": true})"}),
            false));
  ExpectNoDefault(flags);
}

TEST_F(FlagsTest, WhatStandsNowhereKeepsItsDefault) {
  SetVariable("MUSTER_THREADS", "");
  ASSERT_OK_AND_ASSIGN(const Flags flags, Parse(File({"# nothing"})));
  EXPECT_EQ(flags.listen, "127.0.0.1:0");
  EXPECT_EQ(flags.threads, 1);
  EXPECT_FALSE(flags.insecure);
  EXPECT_EQ(flags.log_level, "info");
}

TEST_F(FlagsTest, TheCommandLineComesBeforeTheEnvironmentAndThatBeforeTheFile) {
  SetVariable("MUSTER_THREADS", "2");
  SetVariable("MUSTER_WAIT", "2s");
  SetVariable("MUSTER_INSECURE", "false");
  std::vector<std::string> words =
      File({"threads: 3", "wait: 3s", "listen: 127.0.0.1:3", "insecure: true"});
  words.insert(words.end(), {"--threads", "1"});
  ASSERT_OK_AND_ASSIGN(const Flags flags, Parse(words));
  EXPECT_EQ(flags.threads, 1);
  EXPECT_EQ(flags.wait, "2s");
  EXPECT_EQ(flags.listen, "127.0.0.1:3");
  EXPECT_FALSE(flags.insecure);
}

TEST_F(FlagsTest, TheEnvironmentNamesAFileToo) {
  SetVariable("MUSTER_CONFIG", File({"threads: 9"})[1]);
  ASSERT_OK_AND_ASSIGN(const Flags flags, Parse({}));
  EXPECT_EQ(flags.threads, 9);
}

TEST_F(FlagsTest, TheFileOfTheCommandLineComesBeforeThatOfTheEnvironment) {
  SetVariable("MUSTER_CONFIG", "/nowhere/at/all");
  ASSERT_OK_AND_ASSIGN(const Flags flags, Parse(File({"threads: 9"})));
  EXPECT_EQ(flags.threads, 9);
}

struct BadValue {
  const char* flag;
  const char* variable;
  const char* value;
  const char* wanted;
};
constexpr BadValue kBadValues[] = {
    {"threads", "MUSTER_THREADS", "0", "a whole number from 1 to 64"},
    {"threads", "MUSTER_THREADS", "65", "a whole number from 1 to 64"},
    {"threads", "MUSTER_THREADS", "99999999999", "a whole number from 1 to 64"},
    {"threads", "MUSTER_THREADS", "2 3", "a whole number from 1 to 64"},
    {"threads", "MUSTER_THREADS", "2,3", "a whole number from 1 to 64"},
    {"threads", "MUSTER_THREADS", "[2,3]", "a whole number from 1 to 64"},
    {"wait", "MUSTER_WAIT", "30", "a time from 1s to 5m, such as 1500ms or 30s"},
    {"wait", "MUSTER_WAIT", "inf", "a time from 1s to 5m, such as 1500ms or 30s"},
    {"listen", "MUSTER_LISTEN", "here", "HOST:PORT with a port from 0 (any free one) to 65535"},
    {"dtype", "MUSTER_DTYPE", "int4", "one of auto, float32"},
    {"log-level", "MUSTER_LOG_LEVEL", "loud", "one of debug, info, warning, error, off"},
    {"log-format", "MUSTER_LOG_FORMAT", "JSON", "one of text, json"},
    {"insecure", "MUSTER_INSECURE", "maybe", "true or false"},
    {"die-with-parent", "MUSTER_DIE_WITH_PARENT", "2", "true or false"},
};

void ExpectRefused(const absl::StatusOr<Flags>& flags, const BadValue& bad) {
  EXPECT_EQ(flags.status(), absl::InvalidArgumentError(absl::StrCat(
                                "--", bad.flag, ": '", bad.value, "' is not ", bad.wanted)));
}

TEST_F(FlagsTest, ABadValueIsNamedWithItsFlagAndWhatItCanBeWhereverItStands) {
  for (const BadValue& bad : kBadValues) {
    ExpectRefused(Parse({absl::StrCat("--", bad.flag, "=", bad.value)}), bad);
    ExpectRefused(Parse(File({absl::StrCat(bad.flag, ": '", bad.value, "'")})), bad);
    SetVariable(bad.variable, bad.value);
    ExpectRefused(Parse({}), bad);
    unsetenv(bad.variable);
  }
}

TEST_F(FlagsTest, AnEmptyValueIsNone) {
  EXPECT_STATUS(Parse(File({"insecure:"})), kInvalid, "--insecure: '' is not true or false");
  EXPECT_STATUS(Parse(File({"threads: ''"})), kInvalid, "--threads: '' is not a whole number");
  EXPECT_STATUS(Parse({"--model", ""}, false), kInvalid,
                "--model: '' is not the path of a directory");
  EXPECT_STATUS(Parse(File({"model:"}), false), kInvalid,
                "--model: '' is not the path of a directory");
}

TEST_F(FlagsTest, ANameOfTheFileThatIsNoFlagIsNamedWithItsLine) {
  for (const char* name :
       {"trheads", "--threads", "worker.threads", "help", "config", "h", "print-config"}) {
    const auto flags = Parse(File({"# first", absl::StrCat(name, ": 8")}));
    EXPECT_STATUS(flags, kInvalid,
                  absl::StrCat("--config: '", path_, "', line 2: '", name, "' is no flag"));
    EXPECT_STATUS(flags, kInvalid, "muster-example --help");
    EXPECT_TRUE(IsOneLine(flags.status())) << flags.status();
  }
}

TEST_F(FlagsTest, AFileThatIsNoMappingIsRefusedWithItsLine) {
  for (const char* line :
       {"threads = 8", "- threads", "threads: [8]", "threads: {a: 8}", "threads: [8", "[worker]"}) {
    const auto flags = Parse(File({line}));
    EXPECT_STATUS(flags, kInvalid, absl::StrCat("--config: '", path_, "', line "));
    EXPECT_TRUE(IsOneLine(flags.status())) << flags.status();
  }
}

TEST_F(FlagsTest, AFlagThatStandsTwiceInTheFileIsNamed) {
  EXPECT_STATUS(Parse(File({"threads: 2", "threads: 3"})), kInvalid,
                "line 2: 'threads' stands there twice");
}

TEST_F(FlagsTest, AFileThatCannotBeReadIsNamedWhoeverNamesIt) {
  for (const std::string& path : {std::string("/nowhere/at/all"), ::testing::TempDir()}) {
    const std::string refusal =
        absl::StrCat("--config: '", path, "' is not a file that can be read");
    EXPECT_STATUS(Parse({"--config", path}), kInvalid, refusal);
    SetVariable("MUSTER_CONFIG", path);
    EXPECT_STATUS(Parse({}), kInvalid, refusal);
    unsetenv("MUSTER_CONFIG");
  }
}

TEST_F(FlagsTest, AFlagThatIsUnknownOrMissingIsNamedInOneLine) {
  for (const auto& flags :
       {Parse({"--trheads", "8"}), Parse({"--model", "m", "--threads"}, false), Parse({}, false)}) {
    EXPECT_STATUS(flags, kInvalid, "(muster-example --help explains every flag)");
    EXPECT_TRUE(IsOneLine(flags.status())) << flags.status();
  }
  EXPECT_STATUS(Parse({"--trheads", "8"}), kInvalid, "--trheads");
  EXPECT_STATUS(Parse({}, false), kInvalid, "--model");
}

TEST_F(FlagsTest, HelpNamesEveryVariableAndAsksForNothing) {
  Flags flags;
  std::ostringstream help;
  ASSERT_OK_AND_ASSIGN(const bool parsed, ParseInto(flags, {"--help"}, help));
  EXPECT_FALSE(parsed);
  for (const char* variable : kVariables) {
    EXPECT_NE(help.str().find(variable), std::string::npos) << variable << "\n" << help.str();
  }
  EXPECT_EQ(help.str().find("MUSTER_HELP"), std::string::npos);
}

TEST_F(FlagsTest, HelpComesBeforeEveryRefusal) {
  const std::vector<std::string> broken = File({"trheads: 8"});
  SetVariable("MUSTER_THREADS", "0");
  for (const std::string& file : {broken[1], std::string("/nowhere/at/all")}) {
    SetVariable("MUSTER_CONFIG", file);
    Flags flags;
    std::ostringstream help;
    ASSERT_OK_AND_ASSIGN(const bool parsed, ParseInto(flags, {"--help"}, help));
    EXPECT_FALSE(parsed);
    EXPECT_NE(help.str().find("--threads"), std::string::npos);
  }
}

// What --print-config prints.
class PrintConfigTest : public FlagsTest {
 protected:
  absl::StatusOr<std::string> Printed(std::vector<std::string> words) {
    words.emplace_back("--print-config");
    Flags flags;
    std::ostringstream out;
    const absl::StatusOr<bool> parsed = ParseInto(flags, words, out);
    if (!parsed.ok()) return parsed.status();
    EXPECT_FALSE(*parsed);
    return out.str();
  }
};

TEST_F(PrintConfigTest, NamesEveryValueWithItsOrigin) {
  SetVariable("MUSTER_WAIT", "2s");
  SetVariable("MUSTER_THREADS", "3");
  std::vector<std::string> words = File({"model: /m", "", "threads: 4", "log-level: debug"});
  words.insert(words.end(), {"--log-level=off", "--die-with-parent"});
  ASSERT_OK_AND_ASSIGN(const std::string printed, Printed(words));
  EXPECT_EQ(printed.substr(printed.find("model:")),
            "model: /m              # file, line 1\n"
            "listen: \"127.0.0.1:0\"  # default\n"
            "wait: \"2s\"             # MUSTER_WAIT\n"
            "# dtype:               # not set\n"
            "threads: 3             # MUSTER_THREADS\n"
            "insecure: false        # default\n"
            "log-level: \"off\"       # command line\n"
            "log-format: text       # default\n"
            "die-with-parent: true  # command line\n");
}

TEST_F(PrintConfigTest, IsAFileThatSaysTheSame) {
  ASSERT_OK_AND_ASSIGN(const std::string printed,
                       Printed({"--model", "a \"b\": #c\\", "--threads=7", "--insecure"}));
  ASSERT_OK_AND_ASSIGN(const Flags flags, Parse(File({printed}), false));
  EXPECT_EQ(flags.model, "a \"b\": #c\\");
  EXPECT_EQ(flags.threads, 7);
  EXPECT_TRUE(flags.insecure);
}

TEST_F(PrintConfigTest, RefusesWhatTheProgramWouldRefuse) {
  EXPECT_STATUS(Printed({}), kInvalid, "--model");
  EXPECT_STATUS(Printed({"--model=m", "--threads=0"}), kInvalid, "--threads: '0' is not");
  EXPECT_STATUS(Printed({"--model=m", "--listen", kRefusedAddress}), kInvalid,
                "refused by the program");
}

TEST(CheckPlaintext, StaysOnThisMachineUnlessToldOtherwise) {
  EXPECT_OK(CheckPlaintext("--listen", "127.0.0.1:7600", false));
  EXPECT_OK(CheckPlaintext("--listen", "[::1]:7600", false));
  EXPECT_OK(CheckPlaintext("--listen", "0.0.0.0:7600", true));
  EXPECT_STATUS(CheckPlaintext("--listen", "0.0.0.0:7600", false), kInvalid,
                "--listen: '0.0.0.0:7600' is not a loopback address");
  EXPECT_STATUS(CheckPlaintext("--listen", "nowhere", true), kInvalid, "host:port");
}

}  // namespace
}  // namespace muster
