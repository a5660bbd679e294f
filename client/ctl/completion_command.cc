// `musterctl completion` and `musterctl man`: the command line, explained to shells and to man.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "client/ctl/command.h"
#include "client/ctl/command_tree.h"
#include "client/ctl/completion.h"
#include "client/ctl/man_page.h"

namespace muster::ctl {

void AddCompletionCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto shell = std::make_shared<std::string>();
  CLI::App* completion =
      app.add_subcommand("completion", "Print a script for a shell's completion");
  completion->footer(
      "bash: source <(musterctl completion bash), for example in ~/.bashrc\n"
      "zsh:  musterctl completion zsh > a file _musterctl in $fpath\n"
      "fish: musterctl completion fish > ~/.config/fish/completions/musterctl.fish");
  completion->add_option("shell", *shell, "Which shell")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->type_name("SHELL")
      ->required();
  completion->callback([shell, &app, &chosen] {
    chosen = [shell, &app] {
      const CommandText program = TextOf(app);
      std::cout << (*shell == "bash"  ? BashCompletion(program)
                    : *shell == "zsh" ? ZshCompletion(program)
                                      : FishCompletion(program));
      return 0;
    };
  });
}

void AddManCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  CLI::App* man = app.add_subcommand("man", "Print the manual page");
  man->footer("To read it: musterctl man | man -l -");
  man->callback([&app, &chosen] {
    chosen = [&app] {
      std::cout << ManPage(TextOf(app));
      return 0;
    };
  });
}

}  // namespace muster::ctl
