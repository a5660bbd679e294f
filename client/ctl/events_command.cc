// `musterctl events`: what happened to the fleet.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/wire_json.h"
#include "client/ctl/command.h"
#include "client/ctl/fleet_client.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

// "04:31:07.123  worker lost        replica 0 epoch 1 rank 1 worker w1 warmup/exchange  message"
std::string Line(const v1::WatchEventsResponse& event) {
  const absl::Time time =
      absl::FromUnixSeconds(event.time().seconds()) + absl::Nanoseconds(event.time().nanos());
  std::string line = absl::StrCat(absl::FormatTime("%H:%M:%E3S", time, absl::LocalTimeZone()), "  ",
                                  PadRight(EventWords(event.kind()), 17));
  if (event.has_replica()) absl::StrAppend(&line, "  replica ", event.replica());
  if (event.epoch() != 0) absl::StrAppend(&line, "  epoch ", event.epoch());
  if (event.has_rank()) absl::StrAppend(&line, "  rank ", event.rank());
  if (!event.worker_id().empty()) absl::StrAppend(&line, "  ", event.worker_id());
  if (!event.phase().empty()) absl::StrAppend(&line, "  ", event.phase());
  if (!event.message().empty()) absl::StrAppend(&line, "\n              ", event.message());
  return line;
}

absl::Status RunEvents(bool follow, const GlobalOptions& global) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.fleet));
  const FleetClient client(address);
  const auto print = [&](const v1::WatchEventsResponse& event) {
    // Whoever follows through a pipe wants every line at once.
    if (global.for_people()) {
      std::cout << Line(event) << std::endl;
    } else {
      WriteReport(std::cout, global.output, EventJson(event));
    }
  };
  if (follow) return client.FollowEvents(print);
  MUSTER_ASSIGN_OR_RETURN(const auto events, client.Events(0));
  for (const auto& event : events) print(event);
  return absl::OkStatus();
}

}  // namespace

void AddEventsCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto follow = std::make_shared<bool>(false);
  CLI::App* events = app.add_subcommand("events", "List what happened to the fleet");
  events->add_flag("-f,--follow", *follow, "Go on as events happen");
  events->callback([follow, &global, &chosen] {
    chosen = [follow, &global] { return ExitStatus(RunEvents(*follow, global)); };
  });
}

}  // namespace muster::ctl
