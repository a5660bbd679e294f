#include "client/ctl/completion.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace muster::ctl {
namespace {

enum class ValueKind { kNone, kAnything, kChoice, kFile, kDirectory };

ValueKind KindOf(const OptionText& option) {
  if (option.value.empty()) return ValueKind::kNone;
  if (!option.choices.empty()) return ValueKind::kChoice;
  if (option.value == "FILE" || option.value == "PATH") return ValueKind::kFile;
  return option.value == "DIR" ? ValueKind::kDirectory : ValueKind::kAnything;
}

std::string NamesOf(const std::vector<OptionText>& options) {
  std::vector<std::string> names;
  for (const OptionText& option : options) {
    names.insert(names.end(), option.names.begin(), option.names.end());
  }
  return absl::StrJoin(names, " ");
}

std::string NamesOf(const std::vector<CommandText>& commands) {
  return absl::StrJoin(commands, " ", [](std::string* out, const CommandText& command) {
    absl::StrAppend(out, command.name);
  });
}

// What a command is given without a name.
const OptionText* PositionalOf(const CommandText& command) {
  for (const OptionText& option : command.options) {
    if (option.names.empty()) return &option;
  }
  return nullptr;
}

// In single quotes, for sh and its like, and for fish.
std::string Quoted(absl::string_view text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

// --- bash

// "certs init" as one word of a script.
std::string BashName(const std::string& name) { return absl::StrReplaceAll(name, {{" ", "."}}); }

std::string BashNames(const std::vector<CommandText>& commands) {
  return absl::StrJoin(commands, " ", [](std::string* out, const CommandText& command) {
    absl::StrAppend(out, BashName(command.name));
  });
}

std::string BashValues(const OptionText& option) {
  switch (KindOf(option)) {
    case ValueKind::kChoice:
      return absl::StrCat("COMPREPLY=($(compgen -W ", Quoted(absl::StrJoin(option.choices, " ")),
                          " -- \"$word\"))");
    case ValueKind::kFile:
      return "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$word\"))";
    case ValueKind::kDirectory:
      return "compopt -o filenames; COMPREPLY=($(compgen -d -- \"$word\"))";
    case ValueKind::kNone:
    case ValueKind::kAnything:
      return "COMPREPLY=()";
  }
  return "";
}

// Cases of "command option" for every option that takes a value.
void AppendBashCases(const std::string& command, const std::vector<OptionText>& options,
                     std::string& text) {
  for (const OptionText& option : options) {
    if (KindOf(option) == ValueKind::kNone || option.names.empty()) continue;
    const std::string pattern = absl::StrJoin(
        option.names, "|",
        [&](std::string* out, const std::string& name) { absl::StrAppend(out, command, name); });
    absl::StrAppend(&text, "    ", pattern, ") ", BashValues(option), "; return ;;\n");
  }
}

// --- zsh

// Within an _arguments specification, brackets and colons mean something.
std::string ZshText(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"[", "\\["}, {"]", "\\]"}, {":", "\\:"}});
}

std::string ZshAction(const OptionText& option) {
  switch (KindOf(option)) {
    case ValueKind::kChoice:
      return absl::StrCat("(", absl::StrJoin(option.choices, " "), ")");
    case ValueKind::kFile:
      return "_files";
    case ValueKind::kDirectory:
      return "_files -/";
    case ValueKind::kNone:
    case ValueKind::kAnything:
      return " ";
  }
  return "";
}

void AppendZshArguments(const std::vector<OptionText>& options, absl::string_view indent,
                        std::string& text) {
  int positional = 0;
  for (const OptionText& option : options) {
    const std::string value =
        KindOf(option) == ValueKind::kNone
            ? ""
            : absl::StrCat(":", ZshText(option.value), ":", ZshAction(option));
    for (const std::string& name : option.names) {
      const std::string equals = value.empty() || name.size() == 2 ? "" : "=";
      absl::StrAppend(
          &text, " \\\n", indent,
          Quoted(absl::StrCat(name, equals, "[", ZshText(option.description), "]", value)));
    }
    if (!option.names.empty()) continue;
    absl::StrAppend(&text, " \\\n", indent, Quoted(absl::StrCat(++positional, value)));
  }
}

// The command names, each with what it does.
void AppendZshCommands(const CommandText& program, absl::string_view indent, std::string& text) {
  absl::StrAppend(&text, indent, "local -a commands=(");
  for (const CommandText& command : program.commands) {
    absl::StrAppend(&text, "\n", indent, "  ",
                    Quoted(absl::StrCat(command.name, ":", ZshText(command.description))));
  }
  absl::StrAppend(&text, ")\n", indent, "_describe command commands ;;\n");
}

// What follows the name of one of `program`'s commands; $line holds the words from that name on.
void AppendZshCases(const CommandText& program, const std::vector<OptionText>& global,
                    const std::string& indent, std::string& text) {
  absl::StrAppend(&text, indent, "case $line[1] in\n");
  for (const CommandText& command : program.commands) {
    absl::StrAppend(&text, indent, "  ", command.name, ") _arguments",
                    command.commands.empty() ? "" : " -C");
    AppendZshArguments(command.options, indent + "    ", text);
    AppendZshArguments(global, indent + "    ", text);
    if (!command.commands.empty()) {
      const std::string inner = indent + "    ";
      absl::StrAppend(&text, " \\\n", inner, "'1:command:->command' \\\n", inner,
                      "'*::argument:->argument'\n", inner, "case $state in\n", inner,
                      "  command)\n");
      AppendZshCommands(command, inner + "    ", text);
      absl::StrAppend(&text, inner, "  argument)\n");
      AppendZshCases(command, global, inner + "    ", text);
      absl::StrAppend(&text, " ;;\n", inner, "esac");
    }
    absl::StrAppend(&text, " ;;\n");
  }
  absl::StrAppend(&text, indent, "esac");
}

// --- fish

// Holds where all words of a command's name have been typed.
std::string FishSeen(const std::string& name) {
  return absl::StrCat("__fish_seen_subcommand_from ",
                      absl::StrReplaceAll(name, {{" ", "; and __fish_seen_subcommand_from "}}));
}

void AppendFishCommands(const std::string& program, const std::string& condition,
                        const std::vector<CommandText>& commands, std::string& text) {
  for (const CommandText& command : commands) {
    absl::StrAppend(&text, "complete -c ", program, " -n ", Quoted(condition), " -a ", command.name,
                    " -d ", Quoted(command.description), "\n");
  }
}

void AppendFishOptions(const std::string& program, const std::string& condition,
                       const std::vector<OptionText>& options, std::string& text) {
  for (const OptionText& option : options) {
    absl::StrAppend(&text, "complete -c ", program);
    if (!condition.empty()) absl::StrAppend(&text, " -n ", Quoted(condition));
    for (absl::string_view name : option.names) {
      const bool is_long = absl::ConsumePrefix(&name, "--");
      absl::StrAppend(&text, is_long ? " -l " : " -s ", is_long ? name : name.substr(1));
    }
    switch (KindOf(option)) {
      case ValueKind::kNone:
        break;
      case ValueKind::kAnything:
        absl::StrAppend(&text, " -x");
        break;
      case ValueKind::kChoice:
        absl::StrAppend(&text, option.names.empty() ? " -a " : " -x -a ",
                        Quoted(absl::StrJoin(option.choices, " ")));
        break;
      case ValueKind::kFile:
        absl::StrAppend(&text, " -r -F");
        break;
      case ValueKind::kDirectory:
        absl::StrAppend(&text, " -x -a '(__fish_complete_directories)'");
        break;
    }
    absl::StrAppend(&text, " -d ", Quoted(option.description), "\n");
  }
}

}  // namespace

std::string BashCompletion(const CommandText& program) {
  const std::string& name = program.name;
  const std::vector<CommandText> commands = CommandsOf(program);
  std::string text = absl::StrCat(
      "# bash completion for ", name, ": source <(", name, " completion bash)\n_", name, "() {\n",
      "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= index\n"
      "  # --option=value comes as three words.\n"
      "  [[ $word == = ]] && word= || { [[ $before == = ]] && "
      "before=${COMP_WORDS[COMP_CWORD-2]}; }\n"
      "  for ((index = 1; index < COMP_CWORD; index++)); do\n"
      "    case \" ",
      BashNames(commands),
      " \" in *\" ${command:+$command.}${COMP_WORDS[index]} \"*) "
      "command=${command:+$command.}${COMP_WORDS[index]} ;; esac\n"
      "  done\n"
      "  case $command$before in\n");
  for (const CommandText& command : commands) {
    AppendBashCases(BashName(command.name), command.options, text);
  }
  AppendBashCases("*", program.options, text);
  absl::StrAppend(&text, "  esac\n  case $command in\n");
  for (const CommandText& command : commands) {
    const OptionText* positional = PositionalOf(command);
    if (positional != nullptr) {
      absl::StrAppend(&text, "    ", BashName(command.name), ") [[ $word == -* ]] || { ",
                      BashValues(*positional), "; return; } ;;&\n");
    }
    const std::vector<std::string> words = {NamesOf(command.commands), NamesOf(command.options),
                                            NamesOf(program.options)};
    absl::StrAppend(&text, "    ", BashName(command.name), ") COMPREPLY=($(compgen -W ",
                    Quoted(absl::StripLeadingAsciiWhitespace(absl::StrJoin(words, " "))),
                    " -- \"$word\")) ;;\n");
  }
  absl::StrAppend(&text, "    *) COMPREPLY=($(compgen -W ",
                  Quoted(absl::StrCat(NamesOf(program.commands), " ", NamesOf(program.options))),
                  " -- \"$word\")) ;;\n  esac\n}\ncomplete -F _", name, " ", name, "\n");
  return text;
}

std::string ZshCompletion(const CommandText& program) {
  const std::string& name = program.name;
  std::string text = absl::StrCat("#compdef ", name, "\n# zsh completion for ", name, ": ", name,
                                  " completion zsh > a file _", name, " in $fpath\n_", name,
                                  "() {\n  local state line\n  _arguments -C");
  AppendZshArguments(program.options, "    ", text);
  absl::StrAppend(&text, " \\\n    '1:command:->command' \\\n    '*::argument:->argument'\n",
                  "  case $state in\n    command)\n");
  AppendZshCommands(program, "      ", text);
  absl::StrAppend(&text, "    argument)\n");
  AppendZshCases(program, program.options, "      ", text);
  absl::StrAppend(&text, " ;;\n  esac\n}\nif [[ $funcstack[1] == _", name, " ]]; then _", name,
                  " \"$@\"; else compdef _", name, " ", name, "; fi\n");
  return text;
}

std::string FishCompletion(const CommandText& program) {
  const std::string& name = program.name;
  std::string text = absl::StrCat("# fish completion for ", name, ": ", name,
                                  " completion fish | source\ncomplete -c ", name, " -f\n");
  AppendFishCommands(name, "__fish_use_subcommand", program.commands, text);
  AppendFishOptions(name, "", program.options, text);
  for (const CommandText& command : CommandsOf(program)) {
    AppendFishOptions(name, FishSeen(command.name), command.options, text);
    AppendFishCommands(name,
                       absl::StrCat(FishSeen(command.name), "; and not ",
                                    "__fish_seen_subcommand_from ", NamesOf(command.commands)),
                       command.commands, text);
  }
  return text;
}

}  // namespace muster::ctl
