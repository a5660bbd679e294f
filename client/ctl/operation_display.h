// An operation for people, as it gets on: a line per phase, and on a terminal every rank's
// progress.
#ifndef MUSTER_CLIENT_CTL_OPERATION_DISPLAY_H_
#define MUSTER_CLIENT_CTL_OPERATION_DISPLAY_H_

#include <map>
#include <string>

#include "absl/time/time.h"
#include "client/ctl/live_lines.h"
#include "proto/muster/v1/fleet.pb.h"

namespace muster::ctl {

class OperationDisplay {
 public:
  explicit OperationDisplay(Terminal terminal) : lines_(terminal) {}

  // The state that the operation has at `now`; times of phases are taken between the calls.
  void Show(const v1::Operation& operation, absl::Time now);
  // Takes away what moves.
  void Finish() { lines_.Clear(); }

 private:
  struct Phase {
    int order = -1;
    std::string name;
    absl::Time since;
  };

  // Prints the line of the phase that a replica has left.
  void Advance(const v1::Operation& operation, const v1::ReplicaResize& resize, absl::Time now);
  void ShowRanks(const v1::Operation& operation, absl::Time now);

  LiveLines lines_;
  bool titled_ = false;
  std::map<uint32_t, Phase> phases_;  // by replica
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_OPERATION_DISPLAY_H_
