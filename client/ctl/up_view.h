// Whoever looks on while `musterctl up` runs a fleet.
#ifndef MUSTER_CLIENT_CTL_UP_VIEW_H_
#define MUSTER_CLIENT_CTL_UP_VIEW_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/ctl/fleet_snapshot.h"
#include "client/ctl/local_fleet.h"

namespace muster::ctl {

// Calls come in this order, StandbysStarted, Changed and ProcessEnded any number of times; one
// thread makes them.
class UpView {
 public:
  virtual ~UpView() = default;

  // The coordinator and the workers that will hold a rank are started.
  virtual void Started(const LocalFleet& fleet) = 0;
  // The workers beyond those are started; where there are any.
  virtual void StandbysStarted(const LocalFleet& fleet) = 0;
  // Again and again while the fleet forms, and once more right before Serving.
  virtual void Changed(const FleetSnapshot& snapshot) = 0;
  // All replicas serve; `model` is what their leaders say.
  virtual void Serving(const FleetSnapshot& snapshot, const v1::GetModelResponse& model) = 0;
  // A process ended that should not have.
  virtual void ProcessEnded(const ChildProcess& process) = 0;
  // The fleet will be ended because of this.
  virtual void Failed(const absl::Status& status) = 0;
  // All `count` processes are gone.
  virtual void Stopped(int count, absl::Duration took) = 0;
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_UP_VIEW_H_
