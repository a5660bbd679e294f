// What a change of shape would take, as a table for people.
#ifndef MUSTER_CLIENT_CTL_CHANGE_TABLE_H_
#define MUSTER_CLIENT_CTL_CHANGE_TABLE_H_

#include <string>

#include "proto/muster/v1/fleet.pb.h"

namespace muster::ctl {

// Of one change a page with who comes, goes and stays, weights, KV, memory, capacity and times; of
// several, which are alike in most, a line each. Lines fit 80 columns unless a name is longer.
// Empty without changes.
std::string ChangeTable(const v1::PlanTopologyResponse& plan);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_CHANGE_TABLE_H_
