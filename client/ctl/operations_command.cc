// `musterctl operations` and `musterctl cancel`: what changes the fleet, and its end.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/wire_operation_json.h"
#include "client/ctl/command.h"
#include "client/ctl/fleet_client.h"
#include "client/ctl/operation_text.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

std::string Took(const v1::Operation& operation) {
  const absl::Time end = operation.has_ended() ? TimeOf(operation.ended()) : absl::Now();
  return HumanDuration(end - TimeOf(operation.started()));
}

std::vector<std::string> Row(const v1::Operation& operation) {
  return {operation.id(),
          CommandOf(operation.kind()),
          operation.summary(),
          StateName(operation.state()),
          absl::FormatTime("%H:%M:%S", TimeOf(operation.started()), absl::LocalTimeZone()),
          Took(operation)};
}

// Failures stand below the table: they are longer than any column.
void Print(const v1::ListOperationsResponse& operations) {
  if (operations.operations().empty()) {
    std::cout << "no operation has changed this fleet\n";
    return;
  }
  Table table(
      {{"ID"}, {"KIND"}, {"SUMMARY"}, {"STATE"}, {"STARTED"}, {"TOOK", Table::Align::kRight}});
  for (const auto& operation : operations.operations()) table.AddRow(Row(operation));
  std::cout << table.ToString();
  for (const auto& operation : operations.operations()) {
    if (!operation.has_failure()) continue;
    std::cout << absl::StrCat("\n", operation.id(), "\n  ", operation.failure().message(), "\n");
  }
}

absl::Status RunOperations(const GlobalOptions& global) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.fleet));
  MUSTER_ASSIGN_OR_RETURN(const auto operations, FleetClient(address).ListOperations());
  if (global.for_people()) {
    Print(operations);
  } else {
    WriteReport(std::cout, global.output, OperationsJson(operations));
  }
  return absl::OkStatus();
}

// What is said of an operation that was asked to end.
std::string CancelledLine(const v1::Operation& operation) {
  const std::string name =
      absl::StrCat("operation ", operation.id(), " (", operation.summary(), ")");
  switch (operation.state()) {
    case v1::OPERATION_STATE_RUNNING:
      return absl::StrCat(name, " is being rolled back");
    case v1::OPERATION_STATE_ROLLED_BACK:
      return absl::StrCat(name, " is rolled back");
    default:
      return absl::StrCat(name, " had ended: ", StateName(operation.state()));
  }
}

absl::Status RunCancel(const std::string& id, const GlobalOptions& global) {
  MUSTER_ASSIGN_OR_RETURN(const CoordinatorAddress address, FindCoordinator(global.fleet));
  MUSTER_ASSIGN_OR_RETURN(const auto operation, FleetClient(address).CancelOperation(id));
  if (global.for_people()) {
    std::cout << CancelledLine(operation) << "\n";
  } else {
    WriteReport(std::cout, global.output, OperationJson(operation));
  }
  return absl::OkStatus();
}

}  // namespace

void AddOperationsCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  app.add_subcommand("operations", "List what changes the fleet, and did")
      ->callback(
          [&global, &chosen] { chosen = [&global] { return ExitStatus(RunOperations(global)); }; });
}

void AddCancelCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto id = std::make_shared<std::string>();
  CLI::App* cancel = app.add_subcommand("cancel", "End an operation that has not taken effect");
  cancel->add_option("operation", *id, "Its id, of musterctl operations")
      ->type_name("ID")
      ->required();
  cancel->callback([id, &global, &chosen] {
    chosen = [id, &global] { return ExitStatus(RunCancel(*id, global)); };
  });
}

}  // namespace muster::ctl
