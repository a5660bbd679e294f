// The flags of the daemons: what a value can be, said in one line when it is something else.
#ifndef MUSTER_BASE_FLAGS_H_
#define MUSTER_BASE_FLAGS_H_

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <iosfwd>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace muster {

// What CLI11 writes after "--flag: ": "'7' is not ...".
std::string FlagRefusal(absl::string_view value, absl::string_view wanted);

CLI::Validator OneOf(std::vector<std::string> choices);
CLI::Validator WholeNumber(int least, int most);
CLI::Validator DurationBetween(absl::Duration least, absl::Duration most);
// `what` completes "the path of a ...".
CLI::Validator PathOf(const std::string& what);
// "host:port" to listen on; port 0 is any free one.
CLI::Validator AddressToListen();

// --log-level, --log-format and --die-with-parent, alike in all daemons.
void AddProcessFlags(CLI::App& app, std::string& log_level, std::string& log_format,
                     bool& die_with_parent);

// --admin-listen, alike in both daemons; `address` stays empty without it.
void AddAdminFlag(CLI::App& app, std::string& address);

// INVALID_ARGUMENT when an address that is not loopback is used without --tls or --insecure:
// plaintext stays on this machine unless told otherwise.
absl::Status CheckPlaintext(absl::string_view flag, const std::string& address, bool insecure);

// The value of each flag is the first of: the command line; the environment ("--kv-memory" as
// MUSTER_KV_MEMORY; an empty variable is none); the file that --config or MUSTER_CONFIG names, one
// mapping of names to values in YAML or JSON; the default. `check` is called once all flags are
// read, and says what else is wrong with them.
//
// False when nothing is to be run: --help or --print-config was asked for, and written to `out`.
// --help comes before every refusal; --print-config prints what would be run with, in YAML that
// --config takes, the origin of each value beside it. INVALID_ARGUMENT is one line that names the
// flag, its value and what it can be; other errors are those of `check`.
absl::StatusOr<bool> ParseFlags(CLI::App& app, int argc, const char* const* argv, std::ostream& out,
                                absl::FunctionRef<absl::Status()> check);

}  // namespace muster

#endif  // MUSTER_BASE_FLAGS_H_
