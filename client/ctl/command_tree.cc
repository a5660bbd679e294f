#include "client/ctl/command_tree.h"

#include <CLI/CLI.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace muster::ctl {
namespace {

// Of what CLI11 calls an option's type, "TYPE:{a,b}", the braces.
std::vector<std::string> ChoicesOf(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const size_t open = type.find(":{");
  if (open == std::string::npos || !absl::EndsWith(type, "}")) return {};
  return absl::StrSplit(type.substr(open + 2, type.size() - open - 3), ',');
}

OptionText TextOf(const CLI::Option& option) {
  OptionText text = {.value = option.get_expected_max() == 0 ? "" : ValueText(option),
                     .choices = ChoicesOf(option),
                     .description = DescriptionText(option)};
  for (const std::string& name : option.get_snames()) text.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) text.names.push_back("--" + name);
  return text;
}

}  // namespace

CommandText TextOf(const CLI::App& app) {
  CommandText text = {
      .name = app.get_name(), .description = app.get_description(), .footer = app.get_footer()};
  for (const CLI::Option* option : app.get_options()) {
    // Options without a group are hidden.
    if (!option->get_group().empty()) text.options.push_back(TextOf(*option));
  }
  for (const CLI::App* command : app.get_subcommands(nullptr)) {
    text.commands.push_back(TextOf(*command));
  }
  return text;
}

std::vector<CommandText> CommandsOf(const CommandText& program) {
  std::vector<CommandText> commands;
  for (const CommandText& command : program.commands) {
    commands.push_back(command);
    for (CommandText& below : CommandsOf(command)) {
      below.name = absl::StrCat(command.name, " ", below.name);
      commands.push_back(std::move(below));
    }
  }
  return commands;
}

std::string ValueText(const CLI::Option& option) {
  // What validators add comes after a colon; one within the word is none.
  const std::string type = option.get_type_name();
  const size_t added = std::min(type.find(":{"), type.find(":("));
  const size_t other = type.find(":INT"), real = type.find(":FLOAT");
  return type.substr(0, std::min({added, other, real}));
}

std::string DescriptionText(const CLI::Option& option) {
  const std::string preset = option.get_default_str();
  if (option.get_required()) return option.get_description() + " (required)";
  if (preset.empty()) return option.get_description();
  return absl::StrCat(option.get_description(), " (default: ", preset, ")");
}

}  // namespace muster::ctl
