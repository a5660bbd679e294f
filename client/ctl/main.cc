// musterctl: the fleet, for people and for programs.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/ctl/command.h"
#include "client/ctl/command_tree.h"

namespace muster::ctl {
namespace {

constexpr char kDescription[] =
    "Looks at a fleet of Muster and talks to it.\n"
    "Without --coordinator it means the one in MUSTER_COORDINATOR, else the one that this user's\n"
    "last `musterctl up` started.";

constexpr char kFooter[] =
    "Exit status: 0 when all went well, 1 when it did not, 2 when the command line is wrong, 130\n"
    "when a signal broke off what was under way.";

// Help that says what an option wants in a word, and its default after the description.
class HelpText : public CLI::Formatter {
 public:
  HelpText() { column_width(26); }

  // Without what a switch that turns another one off sets it to.
  std::string make_option_name(const CLI::Option* option, bool positional) const override {
    return absl::StrReplaceAll(CLI::Formatter::make_option_name(option, positional),
                               {{"{false}", ""}});
  }

  std::string make_option_opts(const CLI::Option* option) const override {
    const std::string value = ValueText(*option);
    return value.empty() ? "" : " " + value;
  }

  std::string make_option_desc(const CLI::Option* option) const override {
    return DescriptionText(*option);
  }
};

void AddOutput(CLI::App& app, Output& output) {
  app.add_option_function<std::string>(
         "--output",
         [&output](const std::string& name) {
           output = name == "json"   ? Output::kJson
                    : name == "yaml" ? Output::kYaml
                                     : Output::kTable;
         },
         "Print tables for people, or json or yaml for programs")
      ->check(CLI::IsMember({"table", "json", "yaml"}))
      ->type_name("FORMAT")
      ->default_str("table");
  app.add_flag_callback(
      "--json", [&output] { output = Output::kJson; }, "As --output json");
}

int Run(int argc, char** argv) {
  CLI::App app(kDescription, "musterctl");
  app.formatter(std::make_shared<HelpText>());
  app.footer(kFooter);
  app.require_subcommand(0, 1);
  app.fallthrough();
  GlobalOptions global;
  app.add_option("--coordinator", global.fleet.coordinator, "Its host:port")->type_name("ADDRESS");
  app.add_option("--tls", global.fleet.tls,
                 "Talk by TLS, with the certificate of this folder (or MUSTER_TLS)")
      ->type_name("DIR");
  AddOutput(app, global.output);
  Command chosen;
  for (auto* add :
       {AddUpCommand, AddStatusCommand, AddTopologyCommand, AddPlanCommand, AddScaleCommand,
        AddApplyCommand, AddDrainCommand, AddCancelCommand, AddOperationsCommand, AddEventsCommand,
        AddForwardCommand, AddBenchCommand, AddTopCommand, AddTraceCommand, AddCertsCommand,
        AddCompletionCommand, AddManCommand}) {
    add(app, global, chosen);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "musterctl: " << error.what() << " (musterctl --help tells more)\n";
    return 2;
  }
  if (chosen) return chosen();
  std::cerr << app.help();
  return 2;
}

}  // namespace

int ExitStatus(const absl::Status& status) {
  if (status.ok()) return 0;
  std::fflush(stdout);
  std::cerr << absl::StrCat("musterctl: ", status.message(), "\n");
  return 1;
}

}  // namespace muster::ctl

int main(int argc, char** argv) { return muster::ctl::Run(argc, argv); }
