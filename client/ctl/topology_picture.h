// A topology drawn in text.
#ifndef MUSTER_CLIENT_CTL_TOPOLOGY_PICTURE_H_
#define MUSTER_CLIENT_CTL_TOPOLOGY_PICTURE_H_

#include <string>

#include "proto/muster/v1/fleet.pb.h"

namespace muster::ctl {

// A line per rank, consecutive ranks of a group tied by a bracket (TP where tp is over 1, else CP),
// and what each rank holds; every line begins with `indent` spaces and ends with a newline:
//
//   rank 0  w0  cpu:0 ─┐ CP   KV blocks 0 2 4 ..
//   rank 1  w1  cpu:1 ─┘      KV blocks 1 3 5 ..
//
// `workers` gives the devices and the model's heads; what is not in it is left out.
std::string TopologyPicture(const v1::Topology& topology, const v1::ListWorkersResponse& workers,
                            int indent);

// "tp=1 cp=2", with pp where it is over 1.
std::string ParallelSizes(const v1::ParallelConfig& config);

// "cpu:0", or "cuda:0".
std::string DeviceName(const v1::DeviceReport& device);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_TOPOLOGY_PICTURE_H_
