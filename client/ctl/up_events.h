// `musterctl up --json`: an object per line for programs.
#ifndef MUSTER_CLIENT_CTL_UP_EVENTS_H_
#define MUSTER_CLIENT_CTL_UP_EVENTS_H_

#include <cstdio>
#include <map>
#include <string>

#include "base/wire_json.h"
#include "client/ctl/up_view.h"

namespace muster::ctl {

// Every object has "event": "started", "standbys_started", "fleet_event", "serving",
// "process_ended", "failed" or "stopped". Of a fleet with TLS "started" and "serving" have the
// folders of a scheduler's certificate ("tls"), an operator's ("tls_operator") and the authority
// ("tls_authority"). Lines are flushed one by one.
class UpEvents : public UpView {
 public:
  // Writes to `out`, which outlives it.
  explicit UpEvents(std::FILE* out) : out_(out) {}

  void Started(const LocalFleet& fleet) override;
  void StandbysStarted(const LocalFleet& fleet) override;
  void Changed(const FleetSnapshot& snapshot) override;
  void Serving(const FleetSnapshot& snapshot, const v1::GetModelResponse& model) override;
  void ProcessEnded(const ChildProcess& process) override;
  void Failed(const absl::Status& status) override;
  void Stopped(int count, absl::Duration took) override;

 private:
  std::FILE* const out_;
  std::string coordinator_;
  Json tls_ = Json::object();  // of what is said of it, the members
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_UP_EVENTS_H_
