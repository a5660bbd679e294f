#ifndef MUSTER_CLIENT_CTL_COMPLETION_H_
#define MUSTER_CLIENT_CTL_COMPLETION_H_

#include <string>

#include "client/ctl/command_tree.h"

namespace muster::ctl {

// Scripts that complete the commands and options of `program`, options of the program itself after
// its commands as well, values where there are few of them, and names of files. Each is loaded as
// the shell's manual says.
std::string BashCompletion(const CommandText& program);
std::string ZshCompletion(const CommandText& program);
std::string FishCompletion(const CommandText& program);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_COMPLETION_H_
