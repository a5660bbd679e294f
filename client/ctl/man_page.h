#ifndef MUSTER_CLIENT_CTL_MAN_PAGE_H_
#define MUSTER_CLIENT_CTL_MAN_PAGE_H_

#include <string>

#include "client/ctl/command_tree.h"

namespace muster::ctl {

// A manual page of section 1 for man(1): the texts of --help, command by command.
std::string ManPage(const CommandText& program);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_MAN_PAGE_H_
