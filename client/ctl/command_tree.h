// The command line of a program as plain texts, for whatever explains it: the same that --help has.
#ifndef MUSTER_CLIENT_CTL_COMMAND_TREE_H_
#define MUSTER_CLIENT_CTL_COMMAND_TREE_H_

#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace muster::ctl {

struct OptionText {
  std::vector<std::string> names;    // "-f", "--follow"; none for a positional argument
  std::string value;                 // what it takes, e.g. "DIR"; empty for a switch
  std::vector<std::string> choices;  // all that it takes; empty: anything
  std::string description;           // with its default
};

struct CommandText {
  std::string name;
  std::string description;
  std::string footer;
  std::vector<OptionText> options;  // hidden ones are not here
  std::vector<CommandText> commands;
};

CommandText TextOf(const CLI::App& app);

// All commands below `program`, in its order, those below a command behind it. Each has all the
// words that call it for a name: "certs", "certs init".
std::vector<CommandText> CommandsOf(const CommandText& program);

// The word that says what an option takes, and its description with the default behind it, as
// --help has them.
std::string ValueText(const CLI::Option& option);
std::string DescriptionText(const CLI::Option& option);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_COMMAND_TREE_H_
