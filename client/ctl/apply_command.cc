// `musterctl apply`: the topology that a file asks for.
#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/operation_command.h"
#include "client/ctl/topology_file.h"

namespace muster::ctl {
namespace {

constexpr char kFooter[] =
    "The file is YAML or JSON, with any of these keys; a size that is left out stays as it is:\n"
    "  tp: 2\n"
    "  cp: 4\n"
    "  replicas: 1\n"
    "  buckets: [32, 16, 8, 4, 2, 1]\n"
    "  drop: [CLIENT/SEQUENCE]\n"
    "  timeout: 10m\n"
    "Where KV cannot be moved, sequences are computed again from their tokens; those that cannot\n"
    "be make it refuse, unless drop names them.";

struct ApplyOptions {
  std::string file;
  bool dry_run = false;
  std::vector<std::string> drop;
  OperationFlags flags;
};

absl::StatusOr<std::string> ReadText(const std::string& file) {
  std::ostringstream text;
  if (file == "-") {
    text << std::cin.rdbuf();
    return text.str();
  }
  std::ifstream in(file);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot read ", file));
  text << in.rdbuf();
  return text.str();
}

absl::StatusOr<v1::ApplyTopologyRequest> ReadRequest(const ApplyOptions& options) {
  MUSTER_ASSIGN_OR_RETURN(const std::string text, ReadText(options.file));
  auto request = ParseTopologyFile(text);
  if (!request.ok()) {
    const std::string name = options.file == "-" ? "the standard input" : options.file;
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", request.status().message()));
  }
  for (const std::string& sequence : options.drop) request->add_drop(sequence);
  options.flags.SetTimeout(*request);
  return request;
}

v1::PlanTopologyRequest PlanOf(const v1::ApplyTopologyRequest& request) {
  v1::PlanTopologyRequest plan;
  *plan.mutable_config() = request.config();
  *plan.mutable_buckets() = request.buckets();
  *plan.mutable_drop() = request.drop();
  return plan;
}

int RunApply(const ApplyOptions& options, const GlobalOptions& global) {
  auto request = ReadRequest(options);
  if (!request.ok()) return ExitStatus(request.status());
  if (options.dry_run) return ExitStatus(PrintPlan(PlanOf(*request), global));
  const OperationOptions session = options.flags.Session(global);
  request->set_request_id(session.request_id);
  return RunOperation(session, [&](const FleetClient& client, grpc::ClientContext& context,
                                   const FleetClient::UseOperation& use) {
    return client.Apply(*request, context, use);
  });
}

std::string CheckSequence(const std::string& text) {
  const bool named = text.find('/') != std::string::npos || text == "*";
  return named ? "" : "wants CLIENT/SEQUENCE, or * for all";
}

}  // namespace

void AddApplyCommand(CLI::App& app, const GlobalOptions& global, Command& chosen) {
  auto options = std::make_shared<ApplyOptions>();
  CLI::App* apply = app.add_subcommand("apply", "Change sizes and buckets to what a file says");
  apply->footer(kFooter);
  apply->add_option("file", options->file, "The topology that is wanted; - is the standard input")
      ->type_name("FILE")
      ->required();
  apply->add_flag("--dry-run", options->dry_run, "Show what it would take; change nothing");
  apply->add_option("--drop", options->drop, "A sequence that may be lost, beside the file's")
      ->check(CLI::Validator(CheckSequence, ""))
      ->type_name("CLIENT/SEQUENCE");
  options->flags.AddTo(*apply);
  apply->callback([options, &global, &chosen] {
    chosen = [options, &global] { return RunApply(*options, global); };
  });
}

}  // namespace muster::ctl
