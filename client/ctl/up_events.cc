#include "client/ctl/up_events.h"

#include "base/wire_json.h"

namespace muster::ctl {
namespace {

void Write(std::FILE* out, const Json& json) {
  std::fputs((ToLine(json) + "\n").c_str(), out);
  std::fflush(out);
}

// Those from process `first` on.
Json WorkersJson(const LocalFleet& fleet, size_t first) {
  Json workers = Json::array();
  for (size_t i = first; i < fleet.processes().size(); ++i) {
    workers.push_back({{"worker_id", LocalFleet::WorkerId(static_cast<int>(i) - 1)},
                       {"pid", fleet.processes()[i]->pid()}});
  }
  return workers;
}

// Where clients find their certificates; nothing of a fleet without TLS.
Json TlsJson(const LocalFleet& fleet) {
  if (fleet.TlsFolder("ca").empty()) return Json::object();
  return {{"tls", fleet.TlsFolder("scheduler")},
          {"tls_operator", fleet.TlsFolder("operator")},
          {"tls_authority", fleet.TlsFolder("ca")}};
}

}  // namespace

void UpEvents::Started(const LocalFleet& fleet) {
  coordinator_ = fleet.coordinator_address();
  tls_ = TlsJson(fleet);
  Json json = {{"event", "started"}, {"coordinator", coordinator_}};
  json.update(tls_);
  json["coordinator_pid"] = fleet.processes()[0]->pid();
  json["workers"] = WorkersJson(fleet, 1);
  Write(out_, json);
}

void UpEvents::StandbysStarted(const LocalFleet& fleet) {
  Json json = {{"event", "standbys_started"}};
  const size_t first = fleet.processes().size() - static_cast<size_t>(fleet.standbys());
  json["workers"] = WorkersJson(fleet, first);
  Write(out_, json);
}

void UpEvents::Changed(const FleetSnapshot& snapshot) {
  for (const auto& event : snapshot.new_events) {
    Json json = {{"event", "fleet_event"}};
    json.update(EventJson(event));
    Write(out_, json);
  }
}

void UpEvents::Serving(const FleetSnapshot& snapshot, const v1::GetModelResponse& model) {
  Json json = {{"event", "serving"}, {"coordinator", coordinator_}};
  json.update(tls_);
  json["model"] = ModelJson(model.model());
  json["max_rows_per_step"] = model.max_rows_per_step();
  json["buckets"] = model.buckets();
  json["replicas"] = Json::array();
  for (const auto& replica : snapshot.topology.replicas()) {
    json["replicas"].push_back(ReplicaJson(replica));
    json["replicas"].back()["leader"] = LeaderAddress(replica);
  }
  Write(out_, json);
}

void UpEvents::ProcessEnded(const ChildProcess& process) {
  Write(out_, {{"event", "process_ended"},
               {"name", process.name()},
               {"pid", process.pid()},
               {"exit_status", process.exit_status()},
               {"message", process.Fate()}});
}

void UpEvents::Failed(const absl::Status& status) {
  Write(out_, {{"event", "failed"},
               {"code", absl::StatusCodeToString(status.code())},
               {"message", std::string(status.message())}});
}

void UpEvents::Stopped(int count, absl::Duration took) {
  Write(
      out_,
      {{"event", "stopped"}, {"processes", count}, {"took_ms", absl::ToDoubleMilliseconds(took)}});
}

}  // namespace muster::ctl
