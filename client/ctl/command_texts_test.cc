#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "client/ctl/command_tree.h"
#include "client/ctl/completion.h"
#include "client/ctl/man_page.h"

namespace muster::ctl {
namespace {

class CommandTextsTest : public ::testing::Test {
 protected:
  CommandTextsTest() {
    app_.footer("It ends\nwith this.");
    app_.add_option("--output", output_, "How")
        ->check(CLI::IsMember({"table", "json"}))
        ->type_name("FORMAT")
        ->default_str("table");
    CLI::App* run = app_.add_subcommand("run", "Run it's own [thing]: now");
    run->footer("An example:\n  tool run -n 3\n  .dot");
    run->add_option("-n,--count", count_, "How often")->check(CLI::Range(1, 9))->type_name("N");
    run->add_option("--layers", file_, "Which")->type_name("BEGIN:END");
    run->add_option("--in", file_, "What")->type_name("FILE")->required();
    run->add_flag("--fast", fast_, "Fast");
    run->add_flag("--wait,!--no-wait", fast_, "Wait");
    run->add_option("--secret", file_, "Hidden")->group("");
    app_.add_subcommand("shell", "Script")
        ->add_option("shell", file_, "Which shell")
        ->check(CLI::IsMember({"bash", "zsh"}))
        ->type_name("SHELL");
    CLI::App* keys = app_.add_subcommand("keys", "Keys");
    CLI::App* make = keys->add_subcommand("make", "Make one");
    make->add_option("kind", file_, "Which")->check(CLI::IsMember({"a", "b"}))->type_name("KIND");
    make->add_option("name", file_, "Whose")->type_name("NAME");
    make->add_option("--out", file_, "Where")->type_name("DIR");
    keys->add_subcommand("show", "Show one");
  }

  // Of the option with this name in the command "run".
  OptionText Option(const std::string& name) const {
    const CommandText text = TextOf(app_);
    for (const OptionText& option : text.commands[0].options) {
      if (!option.names.empty() && option.names.back() == name) return option;
    }
    return {};
  }

  CLI::App app_{"A tool. It does\nthings.", "tool"};
  std::string output_, file_;
  int count_ = 1;
  bool fast_ = false;
};

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(CommandTextsTest, TheTreeHasTheTextsOfHelp) {
  const CommandText text = TextOf(app_);
  ASSERT_EQ(text.commands.size(), 3u);
  EXPECT_EQ(text.commands[0].name, "run");
  EXPECT_EQ(Option("--count").names, (std::vector<std::string>{"-n", "--count"}));
  EXPECT_EQ(Option("--count").value, "N");
  EXPECT_EQ(Option("--layers").value, "BEGIN:END");
  EXPECT_EQ(Option("--in").description, "What (required)");
  EXPECT_EQ(Option("--fast").value, "");
  EXPECT_TRUE(Option("--secret").names.empty());
  EXPECT_EQ(text.options.back().choices, (std::vector<std::string>{"table", "json"}));
  EXPECT_EQ(text.options.back().description, "How (default: table)");
}

TEST_F(CommandTextsTest, ASwitchHasTheNameThatTurnsItOff) {
  EXPECT_EQ(Option("--no-wait").names, (std::vector<std::string>{"--wait", "--no-wait"}));
  EXPECT_EQ(Option("--no-wait").value, "");
}

TEST_F(CommandTextsTest, BashOffersCommandsOptionsChoicesAndFiles) {
  const std::string script = BashCompletion(TextOf(app_));
  EXPECT_TRUE(Has(script, "compgen -W 'run shell keys -h --help --output'")) << script;
  EXPECT_TRUE(Has(script, "run-n|run--count) COMPREPLY=(); return")) << script;
  EXPECT_TRUE(Has(script, "run--in) compopt -o filenames; COMPREPLY=($(compgen -f")) << script;
  EXPECT_TRUE(Has(script, "*--output) COMPREPLY=($(compgen -W 'table json'")) << script;
  EXPECT_TRUE(Has(script, "compgen -W 'bash zsh'")) << script;
  EXPECT_FALSE(Has(script, "secret"));
}

TEST_F(CommandTextsTest, ZshQuotesWhatMeansSomethingToIt) {
  const std::string script = ZshCompletion(TextOf(app_));
  EXPECT_EQ(script.rfind("#compdef tool\n", 0), 0u);
  EXPECT_TRUE(Has(script, R"('run:Run it'\''s own \[thing\]\: now')")) << script;
  EXPECT_TRUE(Has(script, R"('--layers=[Which]:BEGIN\:END: ')")) << script;
  EXPECT_TRUE(Has(script, "'--in=[What (required)]:FILE:_files'")) << script;
  EXPECT_TRUE(Has(script, "'1:SHELL:(bash zsh)'")) << script;
}

TEST_F(CommandTextsTest, FishOffersOptionsBehindTheirCommand) {
  const std::string script = FishCompletion(TextOf(app_));
  EXPECT_TRUE(Has(script, "-n '__fish_seen_subcommand_from run' -s n -l count -x -d 'How often'"))
      << script;
  EXPECT_TRUE(Has(script, "-l output -x -a 'table json'")) << script;
}

TEST_F(CommandTextsTest, CommandsBelowCommandsHaveAllTheirWords) {
  std::vector<std::string> names;
  for (const CommandText& command : CommandsOf(TextOf(app_))) names.push_back(command.name);
  EXPECT_EQ(names, (std::vector<std::string>{"run", "shell", "keys", "keys make", "keys show"}));
}

TEST_F(CommandTextsTest, BashOffersWhatIsBelowACommand) {
  const std::string script = BashCompletion(TextOf(app_));
  EXPECT_TRUE(Has(script, "case \" run shell keys keys.make keys.show \"")) << script;
  EXPECT_TRUE(Has(script, "keys) COMPREPLY=($(compgen -W 'make show -h")) << script;
  EXPECT_TRUE(Has(script, "keys.make--out) compopt -o filenames")) << script;
  EXPECT_TRUE(Has(script, "keys.make) [[ $word == -* ]] || { COMPREPLY=($(compgen -W 'a b'"))
      << script;
}

TEST_F(CommandTextsTest, ZshOffersWhatIsBelowACommand) {
  const std::string script = ZshCompletion(TextOf(app_));
  EXPECT_TRUE(Has(script, "'make:Make one'")) << script;
  EXPECT_TRUE(Has(script, "'1:KIND:(a b)'")) << script;
  EXPECT_TRUE(Has(script, "'2:NAME: '")) << script;
}

TEST_F(CommandTextsTest, FishOffersWhatIsBelowACommand) {
  const std::string script = FishCompletion(TextOf(app_));
  EXPECT_TRUE(Has(script,
                  "-n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from make "
                  "show' -a make -d 'Make one'"))
      << script;
  EXPECT_TRUE(Has(script,
                  "-n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l "
                  "out"))
      << script;
}

TEST_F(CommandTextsTest, TheManualPageHasEveryCommandAndOption) {
  const std::string page = ManPage(TextOf(app_));
  EXPECT_TRUE(Has(page, ".TH TOOL 1")) << page;
  EXPECT_TRUE(Has(page, "tool \\- A tool\n")) << page;
  EXPECT_TRUE(Has(page, ".SS tool run\n")) << page;
  EXPECT_TRUE(Has(page, ".SS tool keys make\nMake one.\n")) << page;
  EXPECT_TRUE(Has(page, "\\fB\\-n\\fR, \\fB\\-\\-count\\fR \\fIN\\fR\nHow often\n")) << page;
  EXPECT_TRUE(Has(page, "One of table, json.\n")) << page;
  EXPECT_TRUE(Has(page, ".nf\n  tool run \\-n 3\n  .dot\n.fi\n")) << page;
  EXPECT_TRUE(Has(page, "It ends\nwith this.\n")) << page;
  EXPECT_FALSE(Has(page, "secret"));
}

}  // namespace
}  // namespace muster::ctl
